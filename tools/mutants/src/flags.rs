//! Sets of flags that are constants: taken apart where they are used.

use std::collections::HashMap;

use syn::{Expr, Item, Path, UseTree, Visibility};

/// A constant that is a set of flags.
pub(crate) struct FlagSet {
    /// The file that it stands in.
    pub(crate) file: usize,
    pub(crate) name: String,
    /// Whether other files may use it.
    pub(crate) is_shared: bool,
    /// Each flag, as the source names it, and by its whole path.
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) line: usize,
}

/// Finds those of a file.
pub(crate) fn sets_of(file: usize, parsed: &syn::File) -> Vec<FlagSet> {
    let mut imports = HashMap::new();
    for item in &parsed.items {
        if let Item::Use(one) = item {
            flatten(&one.tree, String::new(), &mut imports);
        }
    }
    let mut sets = Vec::new();
    for item in &parsed.items {
        let Item::Const(one) = item else { continue };
        let mut flags = Vec::new();
        collect(&one.expr, &mut flags);
        let whole = |path: &&Path| {
            let mut names: Vec<_> = path.segments.iter().map(|one| one.ident.to_string()).collect();
            let text = names.join("::");
            if let Some(import) = imports.get(&names[0]) {
                names[0].clone_from(import);
            }
            (text, names.join("::"))
        };
        if flags.len() > 1 {
            sets.push(FlagSet {
                file,
                name: one.ident.to_string(),
                is_shared: !matches!(one.vis, Visibility::Inherited),
                flags: flags.iter().map(whole).collect(),
                line: one.ident.span().start().line,
            });
        }
    }
    sets
}

/// The flags in `A.union(B)` and `A | B`.
fn collect<'a>(expr: &'a Expr, flags: &mut Vec<&'a Path>) {
    match expr {
        Expr::MethodCall(call) if call.method == "union" => {
            collect(&call.receiver, flags);
            call.args.iter().for_each(|argument| collect(argument, flags));
        }
        Expr::Binary(binary) if matches!(binary.op, syn::BinOp::BitOr(_)) => {
            collect(&binary.left, flags);
            collect(&binary.right, flags);
        }
        Expr::Path(path) if path.path.segments.len() > 1 && is_constant(&path.path) => {
            flags.push(&path.path);
        }
        _ => {}
    }
}

fn flatten(tree: &UseTree, before: String, into: &mut HashMap<String, String>) {
    match tree {
        UseTree::Path(path) => flatten(&path.tree, format!("{before}{}::", path.ident), into),
        UseTree::Name(name) if name.ident == "self" => {
            let whole = before.trim_end_matches(':').to_owned();
            let last = whole.rsplit("::").next().unwrap_or_default().to_owned();
            into.insert(last, whole);
        }
        UseTree::Name(name) => {
            into.insert(name.ident.to_string(), format!("{before}{}", name.ident));
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|one| flatten(one, before.clone(), into));
        }
        UseTree::Rename(_) | UseTree::Glob(_) => {}
    }
}

/// Whether `path` is named as constants are.
pub(crate) fn is_constant(path: &Path) -> bool {
    path.segments.last().is_some_and(|last| {
        let name = last.ident.to_string();
        name.len() > 1
            && name
                .chars()
                .all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_')
    })
}

/// The last two names of a path.
pub(crate) fn last_two(path: &Path) -> Option<(String, String)> {
    let mut names = path.segments.iter().rev().map(|one| one.ident.to_string());
    let last = names.next()?;
    Some((names.next()?, last))
}
