//! Containers that refuse to grow: a full one gives the value back, so that its owner decides, and what a peer
//! claims about lengths never allocates.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A first-in, first-out queue of at most `cap` values.
#[derive(Debug, Clone)]
pub struct Queue<T> {
    items: VecDeque<T>,
    cap: usize,
}

impl<T> Queue<T> {
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { items: VecDeque::new(), cap }
    }

    /// # Errors
    /// The value itself, if the queue is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        self.items.push_back(value);
        Ok(())
    }

    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    #[must_use]
    pub fn back(&self) -> Option<&T> {
        self.items.back()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.cap
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
    }

    pub fn clear(&mut self) {
        self.items.clear();
    }
}

/// A list of at most `N` values, on the heap. Decoding one that claims more is an error before it is memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct List<T, const N: usize>(Vec<T>);

impl<T, const N: usize> List<T, N> {
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// # Errors
    /// The value itself, if the list is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.0.len() >= N {
            return Err(value);
        }
        self.0.push(value);
        Ok(())
    }

    /// # Errors
    /// The value itself, if the list is full.
    pub fn insert(&mut self, at: usize, value: T) -> Result<(), T> {
        if self.0.len() >= N || at > self.0.len() {
            return Err(value);
        }
        self.0.insert(at, value);
        Ok(())
    }

    pub fn remove(&mut self, at: usize) -> Option<T> {
        (at < self.0.len()).then(|| self.0.remove(at))
    }

    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= N
    }

    /// The first `N` of `values`.
    pub fn of(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().take(N).collect())
    }
}

impl<T, const N: usize> core::ops::Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> core::ops::DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Bounded<T, N> {
            type Value = List<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = List::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value).map_err(|_| A::Error::custom("too many values"))?;
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_value_back() {
        let mut queue = Queue::new(1);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Err(2));
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn a_list_that_claims_too_much_is_refused_before_it_is_memory() {
        let long: Vec<u32> = (0..5).collect();
        let bytes = postcard::to_allocvec(&long).unwrap();
        assert!(postcard::from_bytes::<List<u32, 4>>(&bytes).is_err());
        assert_eq!(&*postcard::from_bytes::<List<u32, 5>>(&bytes).unwrap(), &long[..]);
        let claim = postcard::to_allocvec(&u64::from(u32::MAX)).unwrap();
        assert!(postcard::from_bytes::<List<u32, 4>>(&claim).is_err());
    }
}
