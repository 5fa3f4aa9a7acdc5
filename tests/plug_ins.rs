//! A plug-in that uses regions is unloaded, or is one of several with a copy of this library: the
//! host goes on, and what it handles itself stays its own.
//!
//! Each case runs in a process of its own, as a role of the test `host`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use memmap2::MmapRaw;
use tombolo::EventsRegion;

mod support;
use support::process::{command, role};
use support::{Dir, small};

/// What a host's process exits with when its own handler has its own fault.
const HANDLED: i32 = 66;

/// The plug-in, as it was built with this test, or else built now.
fn plug_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let profile = own.ancestors().nth(2).unwrap(); // target/debug
        let found = profile.join("examples/libplug_in.so");
        let sources = ["src", "abi/src", "tests/plug_in"];
        let changed = sources.iter().map(|path| newest(&own_package().join(path))).max().unwrap();
        if found.exists() && newest(&found) >= changed {
            return found; // cargo builds it with all tests
        }
        let target = profile.parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--profile", "test", "--example", "plug_in"])
            .arg("--manifest-path")
            .arg(own_package().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .status()
            .unwrap();
        assert!(built.success(), "{built}");
        target.join("debug/examples/libplug_in.so")
    })
}

fn own_package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// When `path`, or anything below it, was last changed.
fn newest(path: &Path) -> SystemTime {
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let below = entries.map(|entry| newest(&entry.unwrap().path()));
    below.max().map_or(changed, |below| below.max(changed))
}

/// The loaded plug-in.
struct Loaded(*mut c_void);

impl Loaded {
    fn new(path: &Path) -> Self {
        let path = c_string(path);
        // SAFETY: loads a library of ours, which does nothing when it is loaded.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        Self(library)
    }

    /// Calls the function `name` with `path`, on a thread that ends: thread-locals of its own keep a
    /// library loaded.
    fn call(&self, name: &CStr, path: &Path) {
        // SAFETY: the library is loaded.
        let function = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!function.is_null());
        type Function = extern "C" fn(*const c_char) -> c_int;
        // SAFETY: all functions of the plug-in have this type.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
        let path = c_string(path);
        let result = std::thread::spawn(move || function(path.as_ptr())).join().unwrap();
        assert_eq!(result, 0, "{name:?}");
    }

    fn unload(self) {
        // SAFETY: loaded once by `new`, and not used after.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

extern "C" fn handled(_: c_int) {
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(HANDLED) };
}

fn handle(signal: c_int) {
    // SAFETY: `handled` has the type of a handler and does only what one may.
    unsafe { libc::signal(signal, handled as *const () as usize) };
}

/// Reads what a file no longer has.
fn fault(path: &Path) {
    std::fs::write(path, [1; 4096]).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let map = MmapRaw::map_raw(&file).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: a mapped page, though of a file that no longer has it: the read faults.
    unsafe { map.as_ptr().read_volatile() };
}

#[test]
fn host() {
    let Some((role, path)) = role() else { return };
    handle(libc::SIGBUS);
    let plug_in = Loaded::new(&PathBuf::from(std::env::var_os("PLUG_IN").unwrap()));
    match role.as_str() {
        "opened" => {
            plug_in.call(c"plug_in_opens", &path);
            plug_in.unload();
            fault(&path.with_extension("own"));
        }
        "used" => {
            plug_in.call(c"plug_in_sends", &path);
            plug_in.unload();
            // Its thread looks around by itself within a second.
            std::thread::sleep(Duration::from_millis(1500));
            // SAFETY: the child leaves at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(0) };
            }
            let mut status = -1;
            // SAFETY: `status` is a valid place for the child's status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(status, 0);
            fault(&path.with_extension("own"));
        }
        "copies" => {
            for round in 0..200 {
                plug_in.call(c"plug_in_opens", &path);
                let region = EventsRegion::open_path_with(&path, small()).unwrap();
                assert!(region.is_guarded(), "{round}");
            }
            plug_in.call(c"plug_in_survives_a_cut", &path);
            let path = path.with_extension("ours");
            let mut region = EventsRegion::open_path_with(&path, small()).unwrap();
            let (mut tx, _) = region.split_spsc().unwrap();
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
            assert!(tx.try_send(b"gone").is_err());
            fault(&path.with_extension("own"));
        }
        other => panic!("no such role: {other}"),
    }
}

fn status_of(role: &str) -> ExitStatus {
    let dir = Dir::new();
    let mut command = command("host", role, &dir.file("r"));
    command.env("PLUG_IN", plug_in()).stdout(Stdio::null()).status().unwrap()
}

fn ends_in_the_hosts_handler(role: &str) {
    let status = status_of(role);
    assert_eq!(status.code(), Some(HANDLED), "{status}");
}

#[test]
fn a_hosts_own_handler_runs_after_a_plug_in_opened_a_region_and_was_unloaded() {
    ends_in_the_hosts_handler("opened");
}

#[test]
fn a_host_goes_on_after_a_plug_in_used_a_region_and_was_unloaded() {
    ends_in_the_hosts_handler("used");
}

#[test]
fn two_copies_of_the_library_in_one_process_protect_the_regions_of_both() {
    ends_in_the_hosts_handler("copies");
}
