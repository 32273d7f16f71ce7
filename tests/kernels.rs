//! Every kernel as the adapters of each class would run it, interpreted lane by lane: against its reference, and for what a real
//! device would punish (races, memory that nobody wrote, accesses out of range, barriers that some invocations miss).

mod support {
    pub mod interpreted;
    pub mod kernels;
}

use shader_interpreter::{Buffer, Counts, Kernel as Shader};
use spark3d::compute::device::recording::{Dispatch, Kernel, Precision};
use spark3d::compute::device::shaders::source;
use spark3d::compute::device::{AdapterFacts, Gpu, Heap, KernelTable, Workgroups};
use spark3d::compute::graph::BlockMask;
use spark3d::compute::ops::cases::{self, Case, relative_l2};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use support::interpreted::{Edit, Interpreter, launch};
use support::kernels::{adapters, dispatches, problems};

/// Sizes of subgroups that a driver may choose on an adapter.
fn sizes(facts: &AdapterFacts) -> Vec<u32> {
    let [least, most] = facts.subgroup_sizes.unwrap_or([32; 2]);
    std::iter::successors(Some(least), |&n| (n < most).then_some(2 * n)).collect()
}

/// Runs every case of an operator on a class of adapters with every family of kernels, in each size of subgroups.
fn check_class(
    facts: &AdapterFacts,
    precision: Precision,
    seen: &mut BTreeMap<String, BTreeSet<Vec<u8>>>,
) -> Vec<String> {
    let mut failed = Vec::new();
    for size in sizes(facts) {
        let device = Interpreter::new(size, None);
        let gpu = device.gpu(facts);
        let mut note =
            |case: &Case| {
                let deviations = case.check(&gpu);
                let found = device.take();
                for (kernel, params) in found.kernels {
                    seen.entry(format!("{kernel} subgroup {size}")).or_default().extend(params);
                }
                let title = format!("{}, subgroups of {size}: {}", facts.name, case.name);
                match deviations {
                    Ok(d) => failed.extend(d.into_iter().filter(|d| !d.accepted()).map(|d| {
                        format!("{title}: {} deviates by {:.1e} > {:.1e}", d.result, d.relative, d.tolerance)
                    })),
                    Err(error) => failed.push(format!("{title}: {error}")),
                }
                failed.extend(found.faults.into_iter().map(|fault| format!("{title}: {fault}")));
            };
        for case in cases::cases_in(precision) {
            if !case.name.contains("conv") {
                // The same kernels whatever the subgroups.
                if size == sizes(facts)[0] {
                    note(&case);
                }
                continue;
            }
            let mut families = BTreeSet::new();
            let graph = case.graph();
            let (plan, layout) = support::kernels::planned(&graph, facts);
            let table = KernelTable::default();
            let recorder = spark3d::compute::graph::Recorder::new(&graph, &plan, &layout, facts, &table);
            for choice in recorder.choices() {
                families.extend(choice.variants.iter().map(|v| v.split(' ').next().unwrap_or_default().to_string()));
            }
            for family in families {
                // What has no subgroups needs one size.
                let of_subgroups = family == "matrix" || family == "subgroup";
                if of_subgroups || size == sizes(facts)[0] {
                    gpu.set_kernels(KernelTable::force(&family));
                    note(&case);
                }
            }
        }
    }
    failed
}

fn check(classes: impl Fn(&str) -> bool, precisions: &[Precision]) {
    let (mut seen, mut failed) = (BTreeMap::new(), Vec::new());
    for facts in adapters().iter().filter(|f| classes(&f.name)) {
        for &precision in precisions {
            failed.extend(check_class(facts, precision, &mut seen));
        }
    }
    let sets: usize = seen.values().map(BTreeSet::len).sum();
    eprintln!("{} kernels with {sets} sets of parameters", seen.len());
    assert!(!seen.is_empty() && failed.is_empty(), "{} wrong:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_kernels_of_nvidia_cards_equal_their_references() {
    check(|name| name == "NVIDIA", &[Precision::F32, Precision::F16]);
}

#[test]
fn the_kernels_of_amd_cards_equal_their_references_in_both_sizes_of_subgroups() {
    check(|name| name == "AMD", &[Precision::F16]);
}

/// The other classes: some minutes.
#[test]
#[ignore = "long: `sh tests/kernels.sh` runs it"]
fn the_kernels_of_all_classes_equal_their_references() {
    check(|_| true, &[Precision::F32, Precision::F16]);
}
