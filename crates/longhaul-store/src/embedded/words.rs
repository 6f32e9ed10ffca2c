//! Texts that many operations share, kept once: API, method, queue and parent names.
//!
//! Each use is counted, so that a text goes with its last operation.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::hash::RandomState;

/// A text's number, valid while it is in use.
pub(super) type Word = u32;

#[derive(Default)]
pub(super) struct Words {
    by_text: HashTable<Word>,
    entries: Vec<Entry>,
    free: Vec<Word>,
    hasher: RandomState,
}

struct Entry {
    text: Arc<str>,
    uses: u32,
}

impl Words {
    /// The number of a text, new or known; counts one use.
    pub fn take(&mut self, text: &str) -> Word {
        let hash = self.hasher.hash_one(text);
        if let Some(&word) =
            self.by_text.find(hash, |&word| &*self.entries[word as usize].text == text)
        {
            self.entries[word as usize].uses += 1;
            return word;
        }
        let entry = Entry { text: text.into(), uses: 1 };
        let word = match self.free.pop() {
            Some(word) => {
                self.entries[word as usize] = entry;
                word
            }
            None => {
                self.entries.push(entry);
                Word::try_from(self.entries.len() - 1).expect("fewer texts than operations")
            }
        };
        let Self { by_text, entries, hasher, .. } = self;
        by_text.insert_unique(hash, word, |&word| hasher.hash_one(&*entries[word as usize].text));
        word
    }

    /// Gives back one use.
    pub fn release(&mut self, word: Word) {
        let entry = &mut self.entries[word as usize];
        entry.uses -= 1;
        if entry.uses == 0 {
            let hash = self.hasher.hash_one(&*entry.text);
            if let Ok(found) = self.by_text.find_entry(hash, |&other| other == word) {
                found.remove();
            }
            self.entries[word as usize].text = Arc::default();
            self.free.push(word);
        }
    }

    /// The text of a number in use.
    pub fn text(&self, word: Word) -> &Arc<str> {
        &self.entries[word as usize].text
    }

    /// The number of a text in use.
    pub fn find(&self, text: &str) -> Option<Word> {
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |&word| &*self.entries[word as usize].text == text).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_with_its_last_use_and_its_number_is_given_again() {
        let mut words = Words::default();
        let a = words.take("a");
        let b = words.take("b");
        assert_ne!(a, b);
        assert_eq!(words.take("a"), a);
        words.release(a);
        assert_eq!(words.find("a"), Some(a));
        words.release(a);
        assert_eq!(words.find("a"), None);
        assert_eq!(words.take("c"), a);
        assert_eq!((&**words.text(a), &**words.text(b)), ("c", "b"));
    }
}
