//! Detach keys in what a client types.

/// Looks for the bytes that detach, which may come in pieces.
#[derive(Debug)]
pub struct Keys {
    sequence: Vec<u8>,
    /// How many bytes of the sequence came last; they are held back.
    matched: usize,
}

impl Keys {
    /// An empty sequence never matches.
    pub fn new(sequence: Vec<u8>) -> Keys {
        Keys { sequence, matched: 0 }
    }

    /// Appends to `passed` what is meant for the process. True if the sequence was completed: what follows it is
    /// nobody's.
    pub fn scan(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            passed.extend_from_slice(typed);
            return false;
        }
        for &byte in typed {
            while self.sequence[self.matched] != byte {
                if self.matched == 0 {
                    passed.push(byte);
                    break;
                }
                self.fall_back(passed);
            }
            if self.sequence[self.matched] == byte {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return true;
                }
            }
        }
        false
    }

    /// Appends what is held back, when nothing more can come.
    pub fn finish(&mut self, passed: &mut Vec<u8>) {
        passed.extend_from_slice(&self.sequence[..std::mem::take(&mut self.matched)]);
    }

    /// Passes on as much of what is held back as cannot be the beginning of the sequence any more.
    fn fall_back(&mut self, passed: &mut Vec<u8>) {
        let held = &self.sequence[..self.matched];
        let shorter = (0..self.matched).rev().find(|&length| held.ends_with(&self.sequence[..length]));
        let kept = shorter.unwrap_or(0);
        passed.extend_from_slice(&held[..self.matched - kept]);
        self.matched = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of pieces typed one after the other, and in which piece the sequence ended.
    fn check(sequence: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
        let (mut keys, mut passed) = (Keys::new(sequence.to_vec()), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            if keys.scan(piece, &mut passed) {
                return (passed, Some(index));
            }
        }
        keys.finish(&mut passed);
        (passed, None)
    }

    #[test]
    fn sequences_are_found_and_the_rest_is_passed_on() {
        assert_eq!(check(b"", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), None));
        assert_eq!(check(b"\x10\x11", &[b"ls\n\x10\x11rest"]), (b"ls\n".to_vec(), Some(0)));
        assert_eq!(check(b"\x10\x11", &[b"a\x10", b"\x11"]), (b"a".to_vec(), Some(1)));
        assert_eq!(check(b"\x10\x11", &[b"a\x10", b"b"]), (b"a\x10b".to_vec(), None));
        assert_eq!(check(b"\x10\x11", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), Some(0)));
        assert_eq!(check(b"\x10\x11", &[b"a\x10"]), (b"a\x10".to_vec(), None));
        assert_eq!(check(b"aab", &[b"aaa", b"ac", b"aab"]), (b"aaaac".to_vec(), Some(2)));
        assert_eq!(check(b"abab!", &[b"ababab!"]), (b"ab".to_vec(), Some(0)));
        assert_eq!(check(b"x", &[b"1x2"]), (b"1".to_vec(), Some(0)));
    }
}
