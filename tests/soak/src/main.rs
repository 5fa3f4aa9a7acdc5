//! `tombolo-soak NAME [--seed S]`: does the run NAME in full size; without a name it lists the
//! runs.

use std::env;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tombolo_soak::{Failure, RUNS, Setting, Size, find, serve};

/// Long runs of what the tests run in small.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    /// The run; without it, all runs are listed.
    name: Option<String>,
    /// What the run draws its numbers from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do a tenth only.
    #[arg(long)]
    tenth: bool,
    /// Do a hundredth only, as the tests do.
    #[arg(long, conflicts_with = "tenth")]
    hundredth: bool,
    /// Fail also if something takes longer than on a machine that has nothing else to do.
    #[arg(long)]
    hold_times: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a run starts as its children.
    #[command(hide = true)]
    Child {
        /// What to do.
        role: String,
        /// With what.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.command, &arguments.name) {
        (Some(Command::Child { role, arguments }), _) => {
            serve(role, arguments).map_err(|error| format!("{role}: {error}").into())
        }
        (None, Some(name)) => run(name, &arguments),
        (None, None) => {
            list();
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, arguments: &Arguments) -> Result<(), Failure> {
    let run = find(name).ok_or_else(|| format!("no run is called {name:?}; see the list"))?;
    let size = match (arguments.tenth, arguments.hundredth) {
        (true, _) => Size::Tenth,
        (_, true) => Size::Hundredth,
        _ => Size::Full,
    };
    let (seed, holds_times) = (arguments.seed, arguments.hold_times);
    let setting = Setting { size, seed, program: env::current_exe()?, holds_times };
    println!("{name}: {}", run.about);
    print!("{}", run.start(&setting)?);
    println!("{name}: passed");
    Ok(())
}

fn list() {
    println!("Runs: cargo run --release -p tombolo-soak -- NAME [--seed S]");
    RUNS.iter().for_each(|run| println!("  {:<16} {}", run.name, run.about));
}
