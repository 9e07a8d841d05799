//! Encoded names, one behind the other: each in the memory that it has bytes.

/// Bytes of a chunk: several of the longest names.
const CHUNK: usize = 4096;

/// Names, found again by where they are.
#[derive(Debug, Default)]
pub(super) struct Texts {
    chunks: Vec<Box<[u8; CHUNK]>>,
    /// Bytes used of the last chunk.
    end: usize,
    /// Bytes of names that are still in use.
    used: usize,
}

/// Where a name is. Its length is known to whoever put it there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TextAt(u32);

impl Texts {
    /// Keeps a name of up to 255 bytes.
    pub(super) fn put(&mut self, name: &[u8]) -> TextAt {
        if self.chunks.is_empty() || self.end + name.len() > CHUNK {
            self.chunks.push(Box::new([0; CHUNK]));
            self.end = 0;
        }
        let start = (self.chunks.len() - 1) * CHUNK + self.end;
        if let Some(room) = self.chunks.last_mut().and_then(|last| last.get_mut(self.end..)) {
            room.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        }
        self.end += name.len();
        self.used += name.len();
        TextAt(u32::try_from(start).expect("the names of a shard take less than 4 GiB"))
    }

    /// The name of `length` bytes that was put there.
    pub(super) fn get(&self, at: TextAt, length: u8) -> &[u8] {
        let at = usize::try_from(at.0).unwrap_or(usize::MAX);
        let chunk = self.chunks.get(at / CHUNK).map_or(&[][..], |chunk| &chunk[..]);
        let start = at % CHUNK;
        chunk.get(start..start + usize::from(length)).unwrap_or_default()
    }

    /// A name of `length` bytes is not needed any more. True if most of the memory is of such ones: all
    /// others are to be put into a new place then.
    pub(super) fn give_up(&mut self, length: u8) -> bool {
        self.used = self.used.saturating_sub(usize::from(length));
        self.chunks.len() * CHUNK > 2 * self.used + 2 * CHUNK
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.chunks.len() * CHUNK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_were_put() {
        let mut texts = Texts::default();
        let name = |number: usize| format!("{number}").repeat(1 + number % 60).into_bytes();
        let at: Vec<_> = (0..1000).map(|number| texts.put(&name(number))).collect();
        for (number, at) in at.iter().enumerate() {
            let name = name(number);
            assert_eq!(texts.get(*at, name.len().try_into().unwrap()), name);
        }
        let all: usize = (0..1000).map(|number| name(number).len()).sum();
        assert!(texts.room() < all + all / 16 + CHUNK, "{} of {all}", texts.room());
        let wasteful =
            (0..1000).find(|number| texts.give_up(name(*number).len().try_into().unwrap()));
        assert!((400..600).contains(&wasteful.unwrap()), "{wasteful:?}");
    }
}
