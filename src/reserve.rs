//! A reserve of memory, so that a call that runs out of it ends with an error: Rust ends the process when an allocation
//! fails, and with it the Python interpreter.
//!
//! [`Reserve`] is the allocator of the Python module. When the system refuses an allocation, the reserve is given back to the
//! system and the allocation tried again; what is then in work can be finished, and the scheduler stops the call
//! ([`is_short`]). Large allocations are not made without asking first (`cpu::memory`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Bytes of the reserve: enough for the small allocations of a round on every thread. It is never touched, so that it takes
/// address space and no memory.
const BYTES: usize = 16 << 20;

/// Alignment of a page, so that the system gets all of it back.
const LAYOUT: Layout = match Layout::from_size_align(BYTES, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("the alignment is a power of two"),
};

/// The reserve of the process.
static RESERVE: Block = Block::none();

/// A block of memory that is held, until it is needed.
struct Block {
    held: AtomicPtr<u8>,
    /// Whether it was needed.
    short: AtomicBool,
}

impl Block {
    const fn none() -> Self {
        Self { held: AtomicPtr::new(ptr::null_mut()), short: AtomicBool::new(false) }
    }

    /// Tries again with the block given back if the system refused memory.
    fn or_again(&self, refused: *mut u8, again: impl FnOnce() -> *mut u8) -> *mut u8 {
        if refused.is_null() && self.release() { again() } else { refused }
    }

    /// Gives the block back to the system; whether there was one.
    fn release(&self) -> bool {
        let held = self.held.swap(ptr::null_mut(), Ordering::AcqRel);
        if held.is_null() {
            return false;
        }
        self.short.store(true, Ordering::Relaxed);
        // SAFETY: the block was allocated with this layout, and the exchange above gave it to this thread alone.
        unsafe { System.dealloc(held, LAYOUT) };
        true
    }

    /// Makes sure that there is a block; whether there is one.
    fn refill(&self) -> bool {
        if self.held.load(Ordering::Acquire).is_null() {
            // SAFETY: the layout has a size.
            let block = unsafe { System.alloc(LAYOUT) };
            if block.is_null() {
                return false;
            }
            let held = self.held.compare_exchange(ptr::null_mut(), block, Ordering::AcqRel, Ordering::Acquire);
            if held.is_err() {
                // SAFETY: another thread was faster; the block is this thread's own.
                unsafe { System.dealloc(block, LAYOUT) };
            }
            self.short.store(false, Ordering::Relaxed);
        }
        true
    }
}

/// The system's allocator with a reserve.
#[derive(Debug)]
pub struct Reserve;

// SAFETY: every call is passed on to the system's allocator, with the arguments it came with.
unsafe impl GlobalAlloc for Reserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller; a refused allocation may be tried again.
        unsafe { RESERVE.or_again(System.alloc(layout), || System.alloc(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { RESERVE.or_again(System.alloc_zeroed(layout), || System.alloc_zeroed(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above; a block whose reallocation was refused stays as it is.
        unsafe { RESERVE.or_again(System.realloc(block, layout, new_size), || System.realloc(block, layout, new_size)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Whether the reserve was used up, so that running calls are to stop.
#[must_use]
pub fn is_short() -> bool {
    RESERVE.short.load(Ordering::Relaxed)
}

/// Makes sure that there is a reserve; whether there is one.
#[must_use]
pub fn refill() -> bool {
    RESERVE.refill()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_used_once_and_refilled() {
        let block = Block::none();
        assert!(block.or_again(ptr::null_mut(), ptr::dangling_mut).is_null(), "there is none yet");
        assert!(block.refill() && block.refill() && !block.short.load(Ordering::Relaxed));
        assert_eq!(block.or_again(ptr::null_mut(), ptr::dangling_mut), ptr::dangling_mut());
        assert!(block.short.load(Ordering::Relaxed));
        assert!(block.or_again(ptr::null_mut(), ptr::dangling_mut).is_null(), "there is only one");
        let granted = block.or_again(ptr::dangling_mut(), || unreachable!("memory was granted"));
        assert_eq!(granted, ptr::dangling_mut());
        assert!(block.refill() && !block.short.load(Ordering::Relaxed));
        assert!(block.release());
    }
}
