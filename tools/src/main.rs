//! The `tombolo` command: looks into regions without disturbing them.

mod channel;
mod columns;
mod dump;
mod endpoints;
mod exit;
mod fields;
mod form;
mod health;
mod inspect;
mod lanes;
mod layout;
mod locate;
mod record;
mod report;
mod stuck;
mod units;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{Exit, Failure};

const REGION_HELP: &str = "\
REGION is a path, or a name. Whatever holds a '/' is a path. Anything else is a path if a file of \
that name lies in the current directory, and else the region NAME: $TOMBOLO_DIR/NAME.tombolo, or \
/dev/shm/tombolo-UID/NAME.tombolo where that variable is not set.

A region without a name, such as a channel by Channel::create, is /proc/PID/fd/N, by a process PID that \
has it open: `ls -l /proc/PID/fd` shows its descriptors, with /memfd:tombolo as their file.

Nothing is locked, mapped or written: any region may be looked at, at any time, by whoever may read \
the file.

In JSON every stored 64-bit value is a string of decimal digits, as readers may lose digits of \
larger numbers; smaller ones are numbers. Keys are only ever added within one \"schema\".

Exit codes: 0 healthy, 1 damaged, 2 wrong usage or unreadable, 3 not a region (or nothing there, or \
not initialized), 4 unsupported version, 5 stuck: sound, but a process that is stopped, dead or \
missing keeps messages from getting through.";

/// Looks into tombolo regions without disturbing them.
#[derive(Parser)]
#[command(version, after_help = REGION_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows health, geometry, rings and endpoints of a region
    #[command(after_help = REGION_HELP)]
    Inspect(inspect::Args),
    /// Shows the records of a region's rings, from the oldest not yet received on
    #[command(after_help = REGION_HELP)]
    Dump(dump::Args),
    /// Shows the layout of a region's file, field by field
    Layout(layout::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = run(&cli.command, &mut out);
    match outcome.and_then(|exit| Ok(out.flush().map(|()| exit)?)) {
        Ok(exit) => exit.into(),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Exit::Healthy.into() // the reader has seen enough
        }
        Err(failure) => {
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "tombolo: {}", units::printable(&failure.to_string()));
            failure.exit().into()
        }
    }
}

fn run(command: &Command, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        Command::Inspect(args) => inspect::run(args, out),
        Command::Dump(args) => dump::run(args, out),
        Command::Layout(args) => layout::run(args, out),
    }
}
