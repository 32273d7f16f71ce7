//! Shows every compute shader of spark3d to the compilers of GPU drivers and browsers, without a GPU: `sh tests/compilers.sh`
//! brings them and runs this. The tests of the program cannot see whether other people's compilers take the shaders, and what they
//! make of them.

#[path = "../../support/kernels.rs"]
mod kernels;
mod module;
mod pipelines;
mod radv;
mod report;
mod sessions;
mod spirv;
mod syntax;
mod text;
mod tint;
mod translate;

use clap::{Parser, Subcommand};
use pipelines::Class;
use report::Outcome;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use translate::Facts;

/// Shows every compute shader to the compilers of GPU drivers and browsers
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Internal>,
    /// Drivers and browsers see the kernels that run by default, not every candidate
    #[arg(long)]
    quick: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail where this check cannot run: validator, radv, radv-navi21, tint, tint-pipelines
    #[arg(long, value_name = "CHECK")]
    require: Vec<String>,
    /// The SPIR-V validator
    #[arg(long, value_name = "PROGRAM")]
    spirv_val: Option<PathBuf>,
    /// Words before the name of this program that bring a driver with RADV
    #[arg(long, value_name = "WORDS", value_delimiter = ' ')]
    radv: Option<Vec<String>>,
    /// Write what RADV counted into this folder
    #[arg(long, value_name = "FOLDER")]
    radv_table: Option<PathBuf>,
    /// The folder with check.mjs and the package webgpu
    #[arg(long, value_name = "FOLDER")]
    tint: Option<PathBuf>,
    /// The Vulkan driver (a JSON file) that the browser makes pipelines with
    #[arg(long, value_name = "FILE")]
    tint_driver: Option<String>,
}

#[derive(Subcommand)]
enum Internal {
    /// Compiles with the driver of this process; started by the check
    #[command(hide = true)]
    RadvWorker,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Internal::RadvWorker) => radv::worker::run().map(|()| true),
        None => check(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-compilers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all checks. Whether none failed.
fn check(arguments: &Arguments) -> Result<bool, String> {
    let start = Instant::now();
    let (pipelines, counts) = pipelines::all(arguments.quick)?;
    println!("{counts}\n");
    let classes = pipelines::classes();
    let class = |name: &str| classes.iter().position(|(n, _)| n == name).ok_or(format!("no class {name}"));
    let least = class("Vulkan WebGPU")?;
    let cards = radv::CARDS.iter().map(|card| Ok((card, class(card.class)?))).collect::<Result<Vec<_>, String>>()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let for_card = |key: &str, class: &Class| {
        let need = pipelines[key].needs.get(class);
        need.is_some_and(|need| need.is_default || !arguments.quick)
    };
    let keep = |key: &str, _: &Facts| arguments.radv.is_some() && cards.iter().any(|(_, class)| for_card(key, class));
    let judge = |key: &str, facts: &Facts| !arguments.quick || pipelines[key].is_default() || facts.matrices;
    let wanted = translate::Wanted {
        classes: &classes,
        validator: arguments.spirv_val.as_deref(),
        judge: &judge,
        keep: (folder.path(), &keep),
    };
    // What naga panics about is a refusal.
    std::panic::set_hook(Box::new(|_| ()));
    let all = translate::all(&pipelines, &wanted);
    let _ = std::panic::take_hook();
    let translated = start.elapsed().as_secs_f64();
    let mut outcomes = vec![
        Outcome { seconds: translated, ..syntax::naga(&all) },
        syntax::validator(&all, &wanted),
        syntax::metal(&all),
        syntax::directx(&all),
        syntax::limits(&all, &pipelines, &wanted),
    ];
    for (card, class) in cards {
        let start = Instant::now();
        outcomes.push(match &arguments.radv {
            None => Outcome::left_out(card.check, "no RADV"),
            Some(before) => {
                let (outcome, table) = radv::check(card, before, class, &all, &pipelines, arguments.quick);
                if let (Some(folder), Some(table)) = (&arguments.radv_table, table) {
                    write_table(folder, &table)?;
                }
                outcome.timed(start)
            }
        });
    }
    let tint = arguments.tint.as_deref();
    let start = Instant::now();
    outcomes.push(tint::modules(&all, &pipelines, tint, arguments.quick).timed(start));
    let start = Instant::now();
    let driver = (least, arguments.tint_driver.as_deref());
    outcomes.push(tint::pipelines(&all, &pipelines, tint, driver).timed(start));
    println!("{}", report::table(&outcomes));
    if let Some(file) = &arguments.json {
        let json = serde_json::json!({ "pipelines": counts, "checks": outcomes });
        write(file, &serde_json::to_string_pretty(&json).unwrap_or_default())?;
    }
    let failed: Vec<&str> = outcomes.iter().filter(|o| o.failed(&arguments.require)).map(|o| o.check).collect();
    let ran = outcomes.iter().filter(|o| o.left_out.is_none()).count();
    println!("\n{} passed, {} failed, {} left out", ran - failed.len().min(ran), failed.len(), outcomes.len() - ran);
    Ok(failed.is_empty())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// What was counted and its summary, by card and driver; the rows of cards with matrices alone, as the others' differ little.
fn write_table(folder: &Path, table: &radv::Table) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    let name = table.name();
    if table.driver.matrices {
        write(&folder.join(format!("{name}.csv")), &table.csv())?;
    }
    let summary = serde_json::to_string_pretty(&table.json()).unwrap_or_default();
    write(&folder.join(format!("{name}.json")), &(summary + "\n"))
}
