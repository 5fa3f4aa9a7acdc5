//! Aeron's media driver, in a process of its own: the benchmark's program, started once more.
//!
//! It ends, and removes its files, when the standard input that the starter holds is closed, be it by
//! the starter's death. It is no part of the terminal's foreground, so that Ctrl-C leaves it the
//! time for that.

use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use rusteron_media_driver::{AeronDriver, AeronDriverContext, bindings::aeron_threading_mode_t};
use tombolo_benches::system::Failure;

/// Names the directory to a program that is to be the driver.
const VARIABLE: &str = "TOMBOLO_PEERS_AERON_DRIVER";

/// The directory for which this process is to be the driver.
pub fn asked_for() -> Option<CString> {
    CString::new(std::env::var_os(VARIABLE)?.into_vec()).ok()
}

/// Is the driver.
pub fn run(directory: &CString) -> ExitCode {
    match drive(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the media driver: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread does all of the driver's work, and sleeps when there is none: on few processors it
/// would otherwise take one from those who are measured.
fn drive(directory: &CString) -> Result<(), Failure> {
    let context = AeronDriverContext::new()?;
    context.set_dir(directory)?;
    context.set_dir_delete_on_start(true)?;
    context.set_dir_delete_on_shutdown(true)?;
    context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_SHARED)?;
    context.set_shared_idle_strategy(c"backoff")?;
    context.set_term_buffer_sparse_file(false)?;
    let driver = AeronDriver::new(&context)?;
    driver.start(true)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut vec![]);
        told.store(true, Relaxed);
    });
    while !is_over.load(Relaxed) {
        driver.main_idle_strategy(driver.main_do_work()?);
    }
    Ok(())
}

/// The driver that serves a directory, and how many directions go through it.
struct Running {
    directory: PathBuf,
    process: Child,
    use_count: usize,
}

static RUNNING: Mutex<Vec<Running>> = Mutex::new(vec![]);

/// Where the driver for what happens in this directory has its files.
pub(crate) fn directory(directory: &Path) -> PathBuf {
    directory.join("aeron")
}

/// Starts the driver, unless it serves this directory already.
pub(crate) fn start(in_directory: &Path) -> Result<(), Failure> {
    let directory = directory(in_directory);
    let mut running = RUNNING.lock().map_err(|_| "the drivers' lock is poisoned")?;
    if let Some(same) = running.iter_mut().find(|running| running.directory == directory) {
        same.use_count += 1;
        return Ok(());
    }
    let process = Command::new(std::env::current_exe()?)
        .env(VARIABLE, &directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    running.push(Running { directory, process, use_count: 1 });
    Ok(())
}

/// Ends the driver when nobody needs it any more.
pub(crate) fn stop(in_directory: &Path) {
    let directory = directory(in_directory);
    let Ok(mut running) = RUNNING.lock() else { return };
    let Some(index) = running.iter().position(|running| running.directory == directory) else {
        return;
    };
    running[index].use_count -= 1;
    if running[index].use_count == 0 {
        let mut ended = running.swap_remove(index);
        drop(ended.process.stdin.take());
        let _ = ended.process.wait();
    }
}
