//! Keeping this code loaded for as long as the process lives.
//!
//! What a process's first region sets up outlives all regions: the handler of SIGBUS, the functions
//! around `fork`, the watcher's thread. If this crate is part of a plug-in, unloading that would leave
//! all of them pointing to nothing. So the first region pins the library that this code is in.

/// Pins the library that has this code. A program is never unloaded, nor is anything by C libraries
/// without unloading.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
pub(super) fn stay_loaded() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    static IS_PINNED: AtomicBool = AtomicBool::new(false);
    if IS_PINNED.load(Relaxed) {
        return;
    }
    // Twice at once does no harm, and a child that is forked meanwhile waits for no thread.
    pin();
    IS_PINNED.store(true, Relaxed);
}

#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
fn pin() {
    let own = stay_loaded as *const std::ffi::c_void;
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `found` is a valid place for what is found; the address may be any.
    if unsafe { libc::dladdr(own, found.as_mut_ptr()) } == 0 {
        return; // in no library
    }
    // SAFETY: written by the call, and all zeros is a valid value anyway.
    let name = unsafe { found.assume_init() }.dli_fname;
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: `name` is the string by which the loader knows the library, which is loaded, as this code
    // runs; nothing else is ever loaded by this call. Of a program it finds nothing.
    unsafe { libc::dlopen(name, flags) };
}

/// There is nothing to unload.
#[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
pub(super) fn stay_loaded() {}
