//! Which mutant is on. Stands as `crate::mutants` in the copy of the library that holds them all.
//!
//! `TOMBOLO_MUTANT` names the mutant that is on. `TOMBOLO_MUTANT_HITS` names a file with a byte for each
//! mutant, which is set to 1 when its place is come to. Both are read before `main`, so that programs that
//! are started inherit them, and coming to a place makes no system call: it may lie in a signal handler.

use std::ffi::{CStr, c_char, c_int};
use std::ops::{BitAnd, Not};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering::Relaxed};

static ON: AtomicU32 = AtomicU32::new(0);
static HITS: AtomicPtr<AtomicU8> = AtomicPtr::new(null_mut());

// SAFETY: the loader calls what stands in this section, with these arguments, before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = start;

extern "C" fn start(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    if let Some(id) = variable(c"TOMBOLO_MUTANT") {
        // SAFETY: a C string.
        ON.store(unsafe { libc::atoi(id.as_ptr()) } as u32, Relaxed);
    }
    if let Some(path) = variable(c"TOMBOLO_MUTANT_HITS") {
        HITS.store(mapped(path), Relaxed);
    }
}

fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a C string, and no thread changes the environment before `main`.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: if it is not null it is a C string, and used before `main` only.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

fn mapped(path: &CStr) -> *mut AtomicU8 {
    // SAFETY: a C string.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    // SAFETY: touches no memory; fails if the file was not opened.
    let len = unsafe { libc::lseek(file, 0, libc::SEEK_END) };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other.
    let hits = unsafe { libc::mmap(null_mut(), len as usize, access, libc::MAP_SHARED, file, 0) };
    // SAFETY: opened above, and named by nothing else.
    unsafe { libc::close(file) };
    if hits == libc::MAP_FAILED { null_mut() } else { hits.cast() }
}

/// Whether mutant `id` is on.
#[inline]
pub fn is(id: u32) -> bool {
    let hits = HITS.load(Relaxed);
    if !hits.is_null() {
        // SAFETY: the file has a byte for each mutant.
        let hit = unsafe { hits.add(id as usize) };
        // SAFETY: it stays mapped, and is used by atomic operations only.
        let hit = unsafe { &*hit };
        if hit.load(Relaxed) == 0 {
            hit.store(1, Relaxed); // once: threads on many cores come here
        }
    }
    ON.load(Relaxed) == id
}

/// `flags` without those of `one`.
#[inline]
pub fn without<T: Copy + BitAnd<Output = T> + Not<Output = T>>(id: u32, flags: T, one: T) -> T {
    if is(id) { flags & !one } else { flags }
}

/// `a.min(b)`, or `a`.
#[inline]
pub fn min<T: Ord>(id: u32, a: T, b: T) -> T {
    if is(id) { a } else { a.min(b) }
}

/// `a.max(b)`, or `a`.
#[inline]
pub fn max<T: Ord>(id: u32, a: T, b: T) -> T {
    if is(id) { a } else { a.max(b) }
}
