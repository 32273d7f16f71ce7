//! Before a session is used, each family of kernels that it runs is compared once with the direct kernels on this device, on its
//! own memory: some drivers compile products of matrices wrongly (seen on Intel: <https://github.com/tracel-ai/cubecl/issues/1444>).

use super::record::Recorder;
use super::session::Session;
use super::{Kind, Precision, TensorId};
use crate::base::Result;
use crate::compute::device::{FamilyCheck, KernelTable, Slice};
use std::collections::BTreeMap;
use std::time::Instant;

/// What every choice can fall back to, and what the others are compared with.
const REFERENCE: &str = "direct";
/// Largest relative L2 distance: what sums in another order do to features, by their precision. A wrong tile is off by about one.
const TOLERANCE_F32: f64 = 1e-5;
const TOLERANCE_F16: f64 = 2e-3;

/// The family of a kernel of a choice.
fn family(variant: &str) -> &str {
    variant.split(' ').next().unwrap_or(variant)
}

impl Session {
    /// Compares the families that have not been compared on this device, each on its smallest problem. Returns whether one was
    /// set aside: then the graphs are to be recorded anew. Overwrites activations, weights and gradients.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn check_families(&mut self) -> Result<bool> {
        let table = self.gpu.kernels();
        let mut found: BTreeMap<String, (f64, usize, usize, String, String)> = BTreeMap::new();
        for (program, p) in self.programs.iter().enumerate() {
            let recorder = |table| Recorder::new(&p.graph, &p.plan, &self.layout, self.gpu.facts(), table);
            for choice in recorder(&table).choices() {
                let of = family(&choice.chosen).to_string();
                let comparable = of != REFERENCE && choice.variants.iter().any(|v| family(v) == REFERENCE);
                if !comparable || self.gpu.is_checked(&of) {
                    continue;
                }
                let flops = recorder(&table).record_node(choice.node).dispatches.iter().map(|d| d.flops).sum();
                if found.get(&of).is_none_or(|least| flops < least.0) {
                    found.insert(of, (flops, program, choice.node, choice.problem, choice.chosen));
                }
            }
        }
        if found.is_empty() {
            return Ok(false);
        }
        self.show_all_blocks()?;
        let mut faulty = false;
        for (family, (_, program, node, problem, variant)) in found {
            let start = Instant::now();
            let chosen = self.results(program, node, &problem, &variant)?;
            let reference = self.results(program, node, &problem, REFERENCE)?;
            let tolerance = match self.programs[program].graph.precision {
                Precision::F32 => TOLERANCE_F32,
                Precision::F16 => TOLERANCE_F16,
            };
            let deviation = distance(&chosen, &reference);
            let agrees = deviation <= tolerance;
            faulty |= !agrees;
            let seconds = start.elapsed().as_secs_f64();
            self.gpu.checked(FamilyCheck { family, problem, variant, deviation, agrees, seconds });
        }
        Ok(faulty)
    }

    /// What a node writes with one of its kernels, from numbers that are always the same.
    fn results(&self, program: usize, node: usize, problem: &str, variant: &str) -> Result<Vec<f32>> {
        let p = &self.programs[program];
        let table = KernelTable { measured: [(problem.into(), variant.into())].into(), ..Default::default() };
        let recorder = || Recorder::new(&p.graph, &p.plan, &self.layout, self.gpu.facts(), &table);
        let slices = |tensors: &[TensorId]| -> Vec<(Slice, bool)> {
            let r = recorder();
            let of = |&t: &TensorId| match p.graph.tensors[t].kind {
                Kind::Feature { .. } => r.segments(t).iter().map(|s| (s.slice, true)).collect(),
                Kind::Bytes(_) => vec![(r.slice(t), false)],
            };
            tensors.iter().flat_map(of).collect()
        };
        let node_of = &p.graph.nodes[node];
        let (inputs, outputs) = (slices(&node_of.inputs), slices(&node_of.outputs));
        for (k, &(slice, is_feature)) in inputs.iter().chain(&outputs).enumerate() {
            let half = is_feature && p.graph.precision == Precision::F16;
            self.gpu.write(&self.heaps, slice.heap, slice.offset, &pattern(slice.size as usize, half, k));
        }
        let executable = self.gpu.compile(&recorder().record_node(node), &self.heaps)?;
        self.gpu.run(&executable, &self.dynamic)?;
        let mut values = Vec::new();
        // How partial sums are divided is the variant's own.
        let is_result = |&&t: &&TensorId| p.graph.tensors[t].is_result();
        let results: Vec<TensorId> = node_of.outputs.iter().filter(is_result).copied().collect();
        for (slice, is_feature) in slices(&results) {
            let bytes = self.gpu.read(&self.heaps, slice)?;
            match is_feature && p.graph.precision == Precision::F16 {
                true => values.extend(bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32())),
                false => values.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
            }
        }
        Ok(values)
    }
}

/// `size` bytes of numbers between -1 and 1 that 16 bits hold exactly.
fn pattern(size: usize, half: bool, seed: usize) -> Vec<u8> {
    // A multiplicative hash (Knuth): neighbours differ.
    let value = |k: usize| {
        let hash = ((k + 1) as u32).wrapping_mul(2_654_435_761).wrapping_add((seed as u32).wrapping_mul(2_246_822_519));
        (hash >> 27) as f32 / 16.0 - 1.0
    };
    match half {
        true => (0..size / 2).flat_map(|k| half::f16::from_f32(value(k)).to_le_bytes()).collect(),
        false => (0..size / 4).flat_map(|k| value(k).to_le_bytes()).collect(),
    }
}

/// sqrt(sum (a - b)^2 / sum b^2); infinite where values are not finite.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() || a.iter().chain(b).any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let norm: f64 = b.iter().map(|&b| f64::from(b).powi(2)).sum();
    if norm == 0.0 { error.sqrt() } else { (error / norm).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_exact_in_16_bits_and_varies() {
        let (whole, half) = (pattern(4 * 1000, false, 3), pattern(2 * 1000, true, 3));
        let whole: Vec<f32> = bytemuck::pod_collect_to_vec(&whole);
        let half: Vec<f32> = half.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect();
        assert_eq!(whole, half);
        assert!(whole.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(whole.windows(2).filter(|w| w[0] == w[1]).count() < 100);
        assert_ne!(pattern(400, false, 1), pattern(400, false, 2));
    }

    #[test]
    fn a_wrong_tile_is_far_away() {
        let right: Vec<f32> = bytemuck::pod_collect_to_vec(&pattern(4 * 4096, false, 0));
        let mut wrong = right.clone();
        wrong[..256].fill(0.0);
        assert_eq!(distance(&right, &right), 0.0);
        assert!(distance(&wrong, &right) > 0.1);
        wrong[0] = f32::NAN;
        assert_eq!(distance(&wrong, &right), f64::INFINITY);
    }
}
