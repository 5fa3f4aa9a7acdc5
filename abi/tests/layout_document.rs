//! The tables of the format document are those of the code.
//!
//! `UPDATE_LAYOUT_DOCUMENT=1 cargo test -p tombolo-abi --test layout_document` writes them anew.

use std::path::Path;

const BEGIN: &str = "<!-- layout tables: begin, written by the test layout_document -->\n";
const END: &str = "<!-- layout tables: end -->\n";

#[test]
fn the_format_document_holds_the_tables_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let document = std::fs::read_to_string(&path).expect("the format document is there");
    let (before, rest) = document.split_once(BEGIN).expect("the document marks where tables begin");
    let (found, after) = rest.split_once(END).expect("the document marks where tables end");

    let mut tables = String::new();
    tombolo_abi::document::write_markdown(&mut tables).expect("strings take all");
    let tables = format!("\n{tables}");
    if std::env::var_os("UPDATE_LAYOUT_DOCUMENT").is_some() {
        let updated = [before, BEGIN, &tables, END, after].concat();
        return std::fs::write(&path, updated).expect("the format document is writable");
    }
    assert!(
        found == tables,
        "abi/README.md has other tables than abi/src; run UPDATE_LAYOUT_DOCUMENT=1 cargo test -p \
         tombolo-abi --test layout_document, and see whether the text around them still holds"
    );
}
