//! A file system on which a mapping keeps another file than the one that was opened.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Dir;

/// A mounted stack of two directories, taken down at the end.
pub(crate) struct Overlay {
    dir: Dir,
}

impl Overlay {
    pub(crate) fn mount() -> Result<Self, String> {
        let dir = Dir::new();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.file(name)).unwrap();
        }
        let at = |name| dir.file(name).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let mount = ["-t", "overlay", "overlay", "-o", &options, &at("merged")];
        match Command::new("mount").args(mount).output() {
            Ok(output) if output.status.success() => Ok(Self { dir }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The file `name` in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.file("merged").join(name)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.file("merged")).status();
    }
}
