//! The reader on the path: sees every byte of every connection, and searches for what nobody on the way may read.

/// Bytes that must never be seen on the wire, under a name for the report.
#[derive(Debug, Clone)]
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

/// What was seen last of one direction of one connection, so that a needle across two writes is found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Vec<u8>);

#[derive(Debug, Clone)]
pub(crate) struct Tap {
    needles: Vec<Needle>,
    /// Which bytes begin a needle.
    begins: [bool; 256],
    longest: usize,
    pub(crate) bytes: u64,
}

impl Default for Tap {
    fn default() -> Self {
        Self { needles: Vec::new(), begins: [false; 256], longest: 0, bytes: 0 }
    }
}

impl Tap {
    pub(crate) fn search_for(&mut self, name: impl Into<String>, bytes: &[u8]) {
        if let Some(first) = bytes.first() {
            self.begins[usize::from(*first)] = true;
            self.longest = self.longest.max(bytes.len());
            self.needles.push(Needle { name: name.into(), bytes: bytes.to_vec() });
        }
    }

    /// The name of what was found.
    pub(crate) fn read(&mut self, tail: &mut Tail, bytes: &[u8]) -> Option<&str> {
        self.bytes += bytes.len() as u64;
        let kept = tail.0.len();
        tail.0.extend_from_slice(bytes.get(..self.longest.min(bytes.len())).unwrap_or_default());
        let across = self.find(&tail.0).or_else(|| self.find(bytes));
        if bytes.len() >= self.longest {
            tail.0.clear();
            tail.0.extend_from_slice(&bytes[bytes.len() - self.longest.min(bytes.len())..]);
        } else {
            debug_assert!(tail.0.len() == kept + bytes.len());
            let surplus = tail.0.len().saturating_sub(self.longest);
            tail.0.drain(..surplus);
        }
        across.map(|index| self.needles[index].name.as_str())
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| self.begins[usize::from(**byte)])
            .find_map(|(at, _)| self.needles.iter().position(|needle| bytes[at..].starts_with(&needle.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_needle_within_a_write_and_across_writes_of_any_size() {
        let mut tap = Tap::default();
        tap.search_for("short", b"nee");
        tap.search_for("long", b"a longer needle");
        let text = b"hay hay a longer needle hay";
        for step in 1..text.len() {
            let mut tail = Tail::default();
            let found = text.chunks(step).filter(|part| tap.read(&mut tail, part).is_some()).count();
            assert!(found >= 1, "in steps of {step}");
        }
        let mut tail = Tail::default();
        for part in b"hay a longer noodle hay ne".chunks(3) {
            assert_eq!(tap.read(&mut tail, part), None);
        }
        assert_eq!(tap.read(&mut tail, b"e"), Some("short"));
        assert_eq!(tap.read(&mut Tail::default(), b"e"), None);
    }
}
