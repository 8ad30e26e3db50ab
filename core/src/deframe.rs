//! Records off a byte stream: `length (2, big-endian), bytes`. Holds at most one record in full, so what a peer can
//! make us buffer is fixed, and smaller still before we know it.

use crate::limits::{RECORD_PREFIX, STREAM_BUFFER_BYTES};
use crate::wire::Malformed;
use alloc::vec::Vec;

#[derive(Debug)]
pub(crate) struct Deframe {
    buffer: Vec<u8>,
    start: usize,
    /// Longest record that is accepted now.
    most: usize,
}

impl Deframe {
    pub(crate) const fn new(most: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, most }
    }

    pub(crate) fn accept_up_to(&mut self, most: usize) {
        self.most = most;
    }

    /// How many more bytes `push` takes.
    pub(crate) fn room(&self) -> usize {
        let limit = (self.most + RECORD_PREFIX).min(STREAM_BUFFER_BYTES);
        limit.saturating_sub(self.held())
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// # Errors
    /// `Malformed` if the driver read more than it was allowed.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if bytes.len() > self.room() {
            return Err(Malformed("more bytes than the read budget"));
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Moves the next whole record into `record`; `false` if it is not all there.
    ///
    /// # Errors
    /// `Malformed` if the record claims to be longer than is accepted, or is empty.
    pub(crate) fn pop(&mut self, record: &mut Vec<u8>) -> Result<bool, Malformed> {
        let held = self.buffer.get(self.start..).unwrap_or_default();
        let Some((prefix, rest)) = held.split_first_chunk::<RECORD_PREFIX>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length == 0 || length > self.most {
            return Err(Malformed("record length"));
        }
        let Some(body) = rest.get(..length) else { return Ok(false) };
        record.clear();
        record.extend_from_slice(body);
        self.start += RECORD_PREFIX + length;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            // An idle session costs no buffer.
            if self.buffer.capacity() > 4 * RECORD_PREFIX + self.most / 8 {
                self.buffer = Vec::new();
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_whole_however_they_were_cut() {
        let wire = [&[0, 3, 1, 2, 3, 0, 1, 9][..], &[1, 0], &[7; 256]].concat();
        for step in 1..wire.len() {
            let (mut deframe, mut records, mut record) = (Deframe::new(256), Vec::new(), Vec::new());
            for piece in wire.chunks(step) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let (now, later) = piece.split_at(deframe.room().min(piece.len()));
                    deframe.push(now).unwrap();
                    piece = later;
                    while deframe.pop(&mut record).unwrap() {
                        records.push(record.clone());
                    }
                }
            }
            assert_eq!(records, [vec_of(&[1, 2, 3]), vec_of(&[9]), alloc::vec![7; 256]], "step {step}");
        }
    }

    fn vec_of(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    #[test]
    fn a_claimed_length_over_the_limit_ends_it_at_once() {
        let mut deframe = Deframe::new(100);
        deframe.push(&[0, 101]).unwrap();
        assert!(deframe.pop(&mut Vec::new()).is_err());
        assert!(Deframe::new(100).push(&[0; 103]).is_err());
        let mut empty = Deframe::new(100);
        empty.push(&[0, 0]).unwrap();
        assert!(empty.pop(&mut Vec::new()).is_err());
    }
}
