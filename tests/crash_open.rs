//! A process killed at any named point of opening leaves what the next opener deals with at once.
//! Runs with the feature `__crash_points` only.
#![cfg(feature = "__crash_points")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions};

mod support;
use support::*;

const TEST: &str = "whoever_is_killed_while_opening_leaves_nothing_that_stops_the_next";
const INSIDE: &str = "TOMBOLO_TEST_CRASH_INSIDE";

/// What the killed opener finds.
const SCENES: [&str; 6] = ["absent", "empty", "half-made", "sound", "replaced", "retired"];

fn opening_points() -> impl Iterator<Item = &'static str> {
    let parts = ["create.", "in-place.", "replace.", "join."];
    let points = tombolo::crash::POINTS.iter().copied();
    points.filter(move |point| parts.iter().any(|part| point.starts_with(part)))
}

fn set_scene(scene: &str, path: &Path, sound: &[u8]) {
    match scene {
        "absent" => {}
        "empty" => write_private(path, b""),
        _ => write_private(path, sound),
    }
    match scene {
        "half-made" => set_state(path, 1),
        "retired" => set_state(path, 3),
        _ => {}
    }
}

fn options(scene: &str) -> OpenOptions {
    match scene {
        "replaced" => small().policy(CreatePolicy::CreateNew),
        _ => small(),
    }
}

/// Whether a process that opens the scene's region is killed at `point`.
fn is_killed(scene: &str, point: &str, path: &Path) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([TEST, "--exact", "--nocapture"]).env("TOMBOLO_CRASH", point);
    let output = child.env(INSIDE, path).env("TOMBOLO_TEST_SCENE", scene).output().unwrap();
    let killed = output.status.signal() == Some(libc::SIGKILL);
    assert!(killed || output.status.success(), "{output:?}");
    killed
}

#[test]
fn whoever_is_killed_while_opening_leaves_nothing_that_stops_the_next() {
    if let Some(path) = std::env::var_os(INSIDE) {
        let scene = std::env::var("TOMBOLO_TEST_SCENE").unwrap();
        drop(EventsRegion::open_path_with(path, options(&scene)).unwrap());
        return;
    }
    let sound = sound_bytes(&Dir::new());
    let (mut kills, mut visited) = (0, BTreeSet::new());
    for point in opening_points() {
        for scene in SCENES {
            let dir = Dir::new();
            let path = dir.file("a");
            set_scene(scene, &path, &sound);
            if !is_killed(scene, point, &path) {
                continue;
            }
            kills += 1;
            visited.insert(point);
            let started = Instant::now();
            let next = EventsRegion::open_path_with(&path, small());
            let next = next.unwrap_or_else(|error| panic!("{scene}, {point}: {error}"));
            assert!(started.elapsed() < Duration::from_secs(1), "{scene}, {point}: waited");
            assert!(next.is_current().unwrap(), "{scene}, {point}");
            let new = small().policy(CreatePolicy::CreateNew);
            let new = EventsRegion::open_path_with(&path, new).unwrap();
            assert!(new.is_creator() && new.is_current().unwrap(), "{scene}, {point}");
            let left = fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(left, 1, "{scene}, {point}: something was left behind");
        }
    }
    println!("kills: {kills}, at {} points", visited.len());
    // Passed only where the file system has no files without a name.
    let elsewhere = |point: &str| point == "create.after-empty-file";
    let missed = opening_points().filter(|point| !visited.contains(point) && !elsewhere(point));
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0], "points that no scene passes");
}
