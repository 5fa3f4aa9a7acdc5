//! The modules of a crate, and which file imports from which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::source::{self, Module};

/// A module's names from the root, which has none.
pub(crate) type Names = Vec<String>;

/// The crate whose files hold the layout; named like a room.
const ABI: &str = "abi";

/// How many names of `use` lines are followed, one after the other, to what they name.
const FOLLOWED_MAX: usize = 16;

pub(crate) struct Tree {
    modules: BTreeMap<Names, Node>,
}

struct Node {
    /// Below the crate's directory of sources.
    file: PathBuf,
    module: Module,
}

/// One path in a file: what it names, as it is written and by where that is defined.
pub(crate) struct Import {
    pub(crate) from: Names,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// From the root of the crate.
    pub(crate) names: Names,
    pub(crate) target: Option<PathBuf>,
    /// A module shows what is defined below it: no need of its own.
    pub(crate) is_facade: bool,
}

impl Tree {
    /// Reads the crate whose root is `sources/lib.rs`.
    pub(crate) fn read(sources: &Path) -> io::Result<Self> {
        let mut tree = Self { modules: BTreeMap::new() };
        tree.read_file(sources, PathBuf::from("lib.rs"), PathBuf::new(), Names::new())?;
        Ok(tree)
    }

    /// Reads a module from `file`, whose children's files are in `dir`.
    fn read_file(
        &mut self,
        sources: &Path,
        file: PathBuf,
        dir: PathBuf,
        names: Names,
    ) -> io::Result<()> {
        let text = fs::read_to_string(sources.join(&file));
        let text =
            text.map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let module = source::module(&text);
        for child in &module.children {
            let flat = dir.join(format!("{child}.rs"));
            let nested = dir.join(child).join("mod.rs");
            let path = if sources.join(&flat).exists() { flat } else { nested };
            self.read_file(sources, path, dir.join(child), joined(&names, child))?;
        }
        self.add(file, names, module);
        Ok(())
    }

    fn add(&mut self, file: PathBuf, names: Names, mut module: Module) {
        for (name, inner) in std::mem::take(&mut module.inline) {
            self.add(file.clone(), joined(&names, &name), inner);
        }
        self.modules.insert(names, Node { file, module });
    }

    /// The modules right below the root.
    pub(crate) fn rooms(&self) -> BTreeSet<&str> {
        self.modules
            .keys()
            .filter(|names| names.len() == 1)
            .map(|names| names[0].as_str())
            .collect()
    }

    pub(crate) fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, node) in &self.modules {
            for path in &node.module.paths {
                let Some(names) = self.rooted(from, &path.names) else { continue };
                let (from, file, line) = (from.clone(), node.file.clone(), path.line);
                let is_facade = path.is_reexport && names.starts_with(&from);
                let target = self.target(&names, FOLLOWED_MAX);
                imports.push(Import { from, file, line, names, target, is_facade });
            }
        }
        imports
    }

    /// `path`, written in the module `from`, from the root; none if it leads out of the crate.
    fn rooted(&self, from: &[String], path: &[String]) -> Option<Names> {
        let anchored = self.anchored(from, path);
        anchored.or_else(|| {
            // Behind a module that a `use` line brought here.
            let (first, rest) = path.split_first()?;
            let mut names = self.anchored(from, self.modules[from].module.names.get(first)?)?;
            let is_module = self.modules.contains_key(&names);
            names.extend_from_slice(rest);
            is_module.then_some(names)
        })
    }

    fn anchored(&self, from: &[String], path: &[String]) -> Option<Names> {
        let (mut names, mut rest) = (from.to_vec(), path);
        match path.first()?.as_str() {
            "crate" => {
                names.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "tombolo_abi" => {
                names = vec![ABI.to_owned()];
                rest = &path[1..];
            }
            "super" => {
                while let Some((first, behind)) = rest.split_first()
                    && first == "super"
                {
                    names.pop()?;
                    rest = behind;
                }
            }
            child if self.modules.contains_key(&joined(from, child)) => {}
            _ => return None,
        }
        names.extend_from_slice(rest);
        Some(names)
    }

    /// The file that defines what `names` lead to, through the names that modules show for others.
    fn target(&self, names: &[String], followed_max: usize) -> Option<PathBuf> {
        let len = (0..=names.len()).rev().find(|len| self.modules.contains_key(&names[..*len]))?;
        let (module, rest) = names.split_at(len);
        let node = &self.modules[module];
        let followed = rest.first().and_then(|name| node.module.names.get(name));
        if let Some(path) = followed
            && followed_max > 0
        {
            let mut behind = self.rooted(module, path)?;
            behind.extend_from_slice(&rest[1..]);
            return self.target(&behind, followed_max - 1);
        }
        // Of another crate's names only the room is known.
        (names.first().is_none_or(|first| first != ABI)).then(|| node.file.clone())
    }
}

fn joined(names: &[String], name: &str) -> Names {
    names.iter().cloned().chain([name.to_owned()]).collect()
}
