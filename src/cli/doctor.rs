//! `spark3d doctor`

use super::{Common, print, print_json};
use crate::base::{Error, Result};
use crate::compute::device::adapters;
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
                print(format!("{} = {} ({}, {}, {})", a.index, a.name, a.kind, a.backend, a.driver));
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
            }
        }
        let gpu = common.gpu()?;
        if !self.json {
            print(format!("\nOperators on {}: largest relative L2 deviation from the CPU reference", gpu.facts().name));
        }
        let (mut results, mut failed) = (Vec::new(), 0);
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
        if self.json {
            let report = json!({ "adapters": found, "device": gpu.facts(), "operators": results, "failed": failed });
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
