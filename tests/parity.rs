//! Number for number against PyTorch, nnU-Net and nnssl: every `.json` with a `.safetensors` beside it, in
//! `tests/fixtures/parity/` and in the folder that `SPARK3D_PARITY` names. Driven by the `.json` alone; a kind of case that is
//! not known fails, one of something that the program does not have is counted and printed.

mod parity_support;
mod support;

use parity_support::{Fixture, Report};
use std::path::PathBuf;
use support::fixture;

fn folders() -> Vec<PathBuf> {
    let mut list = vec![fixture("parity")];
    match std::env::var_os("SPARK3D_PARITY") {
        Some(folder) => list.push(folder.into()),
        None => println!("SPARK3D_PARITY is not set: only the fixtures of the repository run"),
    }
    list
}

#[test]
fn every_fixture_agrees() {
    let gpu = support::gpu();
    let mut report = Report::default();
    let model = fixture("nnunet/intermediates.json");
    parity_support::run(&gpu, &Fixture::open(&model), &mut report);
    for folder in folders() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()))
            .map(|f| f.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no fixtures in {}", folder.display());
        // An nnU-Net model comes as a folder of its own.
        files.extend(Some(folder.join("D_nnunet/intermediates.json")).filter(|f| f.is_file()));
        for file in files {
            let fixture = Fixture::open(&file);
            let before = report.compared();
            parity_support::run(&gpu, &fixture, &mut report);
            assert!(report.compared() > before, "nothing was compared with {}", fixture.path.display());
        }
    }
    report.finish();
}
