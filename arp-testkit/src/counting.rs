//! Counts allocations, for tests of what a request or an idle peer costs: the figures are the same on every machine,
//! however slow.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

/// The system's allocator, which counts what the threads allocate that [`count_here`] named. For `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // It is; on Windows clippy does not see it.
    #[allow(clippy::missing_const_for_thread_local, reason = "false alarm")]
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// What this thread allocates counts from now on.
pub fn count_here() {
    COUNTED.set(true);
}

/// Allocations so far, of all threads that count.
pub fn allocated() -> u64 {
    ALLOCATED.load(SeqCst)
}

/// Bytes that threads which count have allocated and not freed. Only the difference of two moments says something:
/// what one of them frees that another thread allocated is subtracted, too.
pub fn held() -> i64 {
    HELD.load(SeqCst)
}

/// `allocations` more, and so many bytes more or fewer.
fn count(allocations: u64, bytes: i64) {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATED.fetch_add(allocations, SeqCst);
        HELD.fetch_add(bytes, SeqCst);
    }
}

// SAFETY: everything is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(ptr, layout, size) }
    }
}
