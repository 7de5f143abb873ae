//! `BufferPool`: memory of working space and results, kept for reuse. Fresh memory costs a page fault per page, and the
//! system's allocator returns large blocks to the system as soon as they are freed.

use std::sync::{Mutex, PoisonError};

/// Released buffers, which any thread may acquire.
#[derive(Debug)]
pub(crate) struct BufferPool<T>(Mutex<Vec<T>>);

impl<T> BufferPool<T> {
    /// An empty pool.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A buffer that was released, or a new one.
    pub(crate) fn acquire(&self, new: impl FnOnce() -> T) -> T {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(new)
    }

    /// Gives a buffer back.
    pub(crate) fn release(&self, used: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(used);
    }
}

impl<T: Clone> BufferPool<Vec<T>> {
    /// A vector of `count` copies of the value.
    pub(crate) fn acquire_filled(&self, count: usize, value: T) -> Vec<T> {
        let mut vector = self.acquire(Vec::new);
        vector.clear();
        vector.resize(count, value);
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_buffers_are_used_again_and_look_new() {
        let buffers = BufferPool::new();
        let mut one = buffers.acquire_filled(3, 0);
        one[1] = 7;
        let place = one.as_ptr();
        buffers.release(one);
        let again = buffers.acquire_filled(2, 0);
        assert_eq!((again.as_ptr(), again.as_slice()), (place, &[0, 0][..]));
        assert_eq!(buffers.acquire_filled(1, 5), [5]);
    }
}
