//! `Spare`: working space and results that have served, for those who come next. Fresh memory costs a fault every page,
//! and the system's allocator hands large blocks back as soon as they are freed.

use std::sync::{Mutex, PoisonError};

/// Things to be used again, by any thread.
#[derive(Debug)]
pub(super) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Spare<T> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One of them, or a new one.
    pub(super) fn take_or(&self, new: impl FnOnce() -> T) -> T {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(new)
    }

    /// Keeps one for later.
    pub(super) fn keep(&self, used: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(used);
    }
}

impl<T: Clone> Spare<Vec<T>> {
    /// `count` times the value.
    pub(super) fn filled(&self, count: usize, value: T) -> Vec<T> {
        let mut vector = self.take_or(Vec::new);
        vector.clear();
        vector.resize(count, value);
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_used_again_and_looks_new() {
        let spare = Spare::new();
        let mut one = spare.filled(3, 0);
        one[1] = 7;
        let place = one.as_ptr();
        spare.keep(one);
        let again = spare.filled(2, 0);
        assert_eq!((again.as_ptr(), again.as_slice()), (place, &[0, 0][..]));
        assert_eq!(spare.filled(1, 5), [5]);
    }
}
