//! `spark3d doctor`

use super::{Common, print, print_json};
use crate::base::{Error, Result, budget};
use crate::bench::outlook::{Outlook, outlook};
use crate::compute::device::{AdapterFacts, FamilyCheck, Speed, Timekeeping, adapters};
use crate::compute::graph::Precision;
use crate::compute::ops::cases::{self, GRADIENT_TOLERANCE, HALF_EPSILON, TOLERANCE};
use crate::compute::ops::{distort, fuse};
use crate::tasks::augmentation::{check_labelled, check_unlabelled};
use clap::Args;
use serde_json::json;

/// List the adapters and check every operator on the chosen one against its reference
#[derive(Args)]
pub struct Doctor {
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub fn run(&self, common: &Common) -> Result<()> {
        let found = adapters();
        let mib = |bytes: u64| bytes >> 20;
        if !self.json {
            for a in &found {
                print(format!("{} ({}, {}, {})", a.title(), a.kind, a.backend, a.driver));
                print(format!(
                    "    binds {} MiB at once, buffers up to {} MiB, {} storage buffers, {} KiB workgroup memory",
                    mib(a.max_binding),
                    mib(a.max_buffer),
                    a.max_storage_buffers,
                    a.workgroup_memory >> 10
                ));
                let features = [
                    ("f16", a.shader_f16),
                    ("subgroups", a.subgroup_sizes.is_some()),
                    ("cooperative matrices", a.matrix_tile.is_some()),
                    ("timestamps", a.timestamps),
                ];
                let list =
                    |has: bool| features.iter().filter(|f| f.1 == has).map(|f| f.0).collect::<Vec<_>>().join(", ");
                print(format!("    has: {}; has not: {}", list(true), list(false)));
                families(a).into_iter().for_each(|line| print(format!("    {line}")));
            }
        }
        let gpu = common.gpu()?;
        if !self.json {
            print(format!("\nOperators on {}: largest relative L2 deviation from the CPU reference", gpu.facts().name));
        }
        let (mut results, mut failed) = (Vec::new(), 0);
        let memory = budget(common.memory, &gpu.facts().kind);
        let check = |precision: Precision| {
            let named = move |name: &str| match precision {
                Precision::F32 => name.to_string(),
                Precision::F16 => format!("{name}, f16"),
            };
            let gpu = gpu.clone();
            let confusion = (named("confusion"), cases::check_confusion(&gpu, precision));
            cases::cases_in(precision).into_iter().map(move |c| (named(&c.name), c.check(&gpu))).chain([confusion])
        };
        let half = gpu.facts().shader_f16.then(|| check(Precision::F16)).into_iter().flatten();
        let sgd = [("sgd".to_string(), cases::check_optimizer(&gpu))];
        let augmentation = [
            ("augmentation of pre-training".to_string(), check_unlabelled(&gpu)),
            ("augmentation of fine-tuning".to_string(), check_labelled(&gpu)),
            ("distortions of pretexts".to_string(), distort::check(&gpu)),
            ("fusion of two images".to_string(), fuse::check(&gpu)),
        ];
        for (name, deviations) in check(Precision::F32).chain(sgd).chain(augmentation).chain(half) {
            let deviations = deviations?;
            let ok = deviations.iter().all(|d| d.accepted());
            failed += usize::from(!ok);
            if self.json {
                results.push(json!({ "case": name, "ok": ok, "deviations": deviations }));
            } else {
                let list: Vec<String> = deviations.iter().map(|d| format!("{} {:.1e}", d.result, d.relative)).collect();
                print(format!("{} {:47} {}", if ok { "ok    " } else { "FAILED" }, name, list.join("  ")));
            }
        }
        let (checks, time, speed) = (gpu.family_checks(), gpu.time(), gpu.speed()?);
        let outlook = outlook(&gpu, memory)?;
        if !self.json {
            device(&checks, time, speed, &outlook).into_iter().for_each(print);
        }
        if self.json {
            let report = json!({
                "adapters": found, "device": gpu.facts(), "operators": results, "failed": failed,
                "families": checks, "time": time, "speed": speed, "outlook": outlook,
            });
            print_json(&report);
        } else if failed == 0 {
            print(format!(
                "All operators agree (forward within {TOLERANCE:.0e}, gradients within {GRADIENT_TOLERANCE:.0e}{}).",
                match gpu.facts().shader_f16 {
                    true => format!(", f16 within a few times {HALF_EPSILON:.0e} of the largest value"),
                    false => String::new(),
                }
            ));
        }
        if failed > 0 {
            return Err(Error::device(
                format!("{failed} operators deviate from their reference on {}", gpu.facts().name),
                "Do not train on this adapter: update its driver, or choose another with --device",
            ));
        }
        Ok(())
    }
}

/// What an adapter offers to the kernels of convolutions, and why it does not offer the others.
fn families(a: &AdapterFacts) -> Vec<String> {
    let sizes = a.subgroup_sizes.map(|[least, most]| match least == most {
        true => format!("{least}"),
        false => format!("{least} to {most}, as the driver chooses"),
    });
    let matrices = match (a.matrix_tile, a.shader_f16) {
        (Some(tile), _) if a.is_software() => {
            format!("matrix kernels: tiles of {tile} x {tile}, only where asked for: a processor has no units for them")
        }
        (Some(tile), _) => format!("matrix kernels: tiles of {tile} x {tile}, first choice for features of 16 bits"),
        (None, false) => "matrix kernels: none, as shaders have no 16-bit floats".into(),
        (None, true) => {
            "matrix kernels: none, as the driver offers no 16-bit matrices that are summed in 32 bits".into()
        }
    };
    let subgroups = match sizes {
        Some(sizes) => format!("subgroups of {sizes}"),
        None => "subgroup kernels: none, as shaders have no subgroup operations".into(),
    };
    vec![subgroups, matrices]
}

/// How the families of kernels did beside the direct ones, what the device is given at once, and what to expect of it.
fn device(checks: &[FamilyCheck], time: Option<Timekeeping>, speed: Option<Speed>, outlook: &[Outlook]) -> Vec<String> {
    let mut lines = vec![String::new()];
    if checks.is_empty() {
        lines.push("Kernels: direct ones alone are chosen".into());
    }
    for c in checks {
        let fate = if c.agrees { "agree with the direct ones" } else { "are WRONG and set aside" };
        lines.push(format!(
            "Kernels `{}` {fate}: off by {:.1e} in `{}` ({:.0} ms)",
            c.family,
            c.deviation,
            c.problem,
            c.seconds * 1e3
        ));
    }
    lines.push(match time {
        Some(Timekeeping { budget, longest, slowness }) => format!(
            "Watchdog: at most {:.0} ms a dispatch and {:.0} ms a submission by estimate ({:.1} times what the speed allows); \
             longest so far {:.1} and {:.1} ms",
            budget.dispatch * 1e3,
            budget.submission * 1e3,
            slowness,
            longest.dispatch * 1e3,
            longest.submission * 1e3
        ),
        None => "Watchdog: a software adapter has none".into(),
    });
    lines.extend(
        speed.map(|s| format!("Speed: {:.0} GFLOP/s in 32 bits, {:.0} GB/s in copies", s.flops / 1e9, s.bytes / 1e9)),
    );
    lines.extend(outlook.iter().map(|o| {
        let gib = o.bytes as f64 / f64::from(1 << 30);
        match o.seconds {
            Some(seconds) => format!(
                "Estimate: {} in {} takes {seconds:.2} s and {gib:.1} GiB (from the speed; matrix units are not in it)",
                o.what,
                o.precision.name()
            ),
            None => format!("{} in {} needs {gib:.1} GiB, more than there is to use", o.what, o.precision.name()),
        }
    }));
    lines
}
