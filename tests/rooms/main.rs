//! The rooms of the library keep their order: a file imports only from rooms that stand lower in the table
//! of `CONTRIBUTING.md` and in its row, and no files import each other in a circle.
//!
//! Imports are `use` lines and paths in code. Tests are left out, and so is what a module shows of its own
//! children. Without cargo, for any tree:
//! `rustc --edition 2024 --test tests/rooms/main.rs -o rooms && ROOMS_TREE=DIR ./rooms --nocapture kept`

mod check;
mod forged;
mod source;
mod table;
mod tree;

use std::env;
use std::path::PathBuf;

use check::{Kind, breaks};

#[test]
fn the_order_of_rooms_is_kept() {
    let tree = env::var_os("ROOMS_TREE").or_else(|| env::var_os("CARGO_MANIFEST_DIR"));
    let tree = PathBuf::from(tree.expect("ROOMS_TREE or cargo says which tree"));
    let table =
        env::var_os("ROOMS_TABLE").map_or_else(|| tree.join("CONTRIBUTING.md"), PathBuf::from);
    let breaks = breaks(&tree, &table).expect("sources and table can be read");
    for found in &breaks {
        println!("{found}");
    }
    let count = |kind| breaks.iter().filter(|found| found.kind == kind).count();
    println!("imports upward: {}", count(Kind::Up));
    println!("imports from the root: {}", count(Kind::Root));
    println!("imports that no row names: {}", count(Kind::Unnamed));
    println!("circles of files: {}", count(Kind::Circle));
    assert!(breaks.is_empty(), "{} breaks of the order of rooms", breaks.len());
}
