//! The table of rooms in `CONTRIBUTING.md`, from the lowest to the highest.

/// The table's last heading.
const HEADING: &str = "may use of ours";

/// Stands for all rows above.
const ALL_ABOVE: &str = "all above";

pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    rooms: Vec<String>,
    /// Rooms, or paths in them.
    uses: Vec<String>,
}

impl Table {
    pub(crate) fn parse(document: &str) -> Self {
        let is_heading =
            |line: &&str| cells(line).is_some_and(|cells| cells.last() == Some(&HEADING));
        let body = document.lines().skip_while(|line| !is_heading(line)).skip(2);
        let rows = body.map_while(cells).filter_map(|cells| {
            let rooms = listed(cells.first()?);
            // What has a directory of its own is a package.
            let is_package = rooms.iter().any(|room| room.ends_with('/'));
            (!is_package).then(|| Row { rooms, uses: listed(cells[cells.len() - 1]) })
        });
        Self { rows: rows.collect() }
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flat_map(|row| &row.rooms).map(String::as_str)
    }

    /// The row of `room`, counted from the lowest.
    pub(crate) fn height(&self, room: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.rooms.iter().any(|name| name == room))
    }

    /// Whether the row at `height` says that its rooms may use `names`, which are below it. The lowest row
    /// is for all.
    pub(crate) fn may_use(&self, height: usize, names: &[String]) -> bool {
        let is_named = |path: &String| {
            let path: Vec<&str> = path.split("::").collect();
            names.len() >= path.len() && names.iter().zip(&path).all(|(name, part)| name == part)
        };
        let uses = &self.rows[height].uses;
        let is_lowest = self.height(&names[0]) == Some(0);
        is_lowest || uses.iter().any(|path| path == ALL_ABOVE || is_named(path))
    }
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn listed(cell: &str) -> Vec<String> {
    cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
}
