//! Time and memory of the encoder alone, forward and backward, as more and more of the patch is hidden.

use super::table::Table;
use super::{does_not_fit, median, mib, percent};
use crate::base::{Error, Result};
use crate::compute::device::Gpu;
use crate::compute::graph::{
    BlockMask, Graph, Input, Limits, Mask, Parameters, Precision, Session, SessionMemory, TensorId, VoxelLayout,
    product, session_memory,
};
use crate::compute::model;
use crate::compute::model::initial_values;
use crate::data::SampleKey;
use crate::tasks::Plan;
use crate::tasks::pretexts::mae::Settings;
use crate::tasks::pretexts::masking::random_mask;
use serde::Serialize;
use std::rc::Rc;
use std::time::Instant;

/// Shares of the blocks that are hidden. The first is what the others are compared with.
pub const RATIOS: [f64; 4] = [0.0, 0.6, 0.75, 0.9];

/// The encoder at one mask ratio.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderTimes {
    /// Share of the blocks that was asked for.
    pub mask_ratio: f64,
    /// Blocks that it sees.
    pub visible_blocks: usize,
    /// Blocks of the patch.
    pub blocks: usize,
    /// Seconds of each run, and their median; none where it did not fit.
    pub runs: Vec<f64>,
    /// Median of the runs.
    pub seconds: Option<f64>,
    /// As planned, or as allocated where it ran.
    pub memory: SessionMemory,
    /// Why there is no time.
    pub failed: Option<String>,
}

/// Measures the encoder of the plan at every ratio. A ratio whose memory exceeds `budget` is planned but not run.
pub fn run(
    gpu: &Rc<Gpu>,
    plan: &Plan,
    runs: usize,
    budget: Option<u64>,
    report: &dyn Fn(&str),
) -> Result<Vec<EncoderTimes>> {
    let at_ratio = |ratio| -> Result<EncoderTimes> {
        report(&format!("encoder: {:.0} % masked", 100.0 * ratio));
        let settings = &super::mae(plan)?.mae;
        let mask = mask(plan, settings, ratio)?;
        let (graph, image, handle) = graph(plan, settings, mask.count())?;
        let id = graph.id();
        let planned = session_memory(&[&graph], Limits::of(gpu), true)?;
        // Without an optimiser there is no momentum.
        let planned = SessionMemory { momentum: 0, ..planned };
        let mut out = EncoderTimes {
            mask_ratio: ratio,
            visible_blocks: mask.count(),
            blocks: product(mask.grid),
            runs: Vec::new(),
            seconds: None,
            memory: planned,
            failed: does_not_fit(&planned, budget),
        };
        if out.failed.is_some() {
            return Ok(out);
        }
        let mut session = match Session::new(gpu.clone(), vec![graph], None) {
            Ok(session) => session,
            Err(Error::Device { what, .. }) => return Ok(EncoderTimes { failed: Some(what), ..out }),
            Err(other) => return Err(other),
        };
        out.memory = session.memory();
        let values = initial_values(&session.parameters, plan.train.init, plan.seed);
        values.iter().enumerate().for_each(|(id, values)| session.set_weight(id, values));
        session.set_mask(handle, &mask)?;
        session.set_image(image, &super::step::random_patch(plan, 0).data);
        for run in 0..=runs.max(1) {
            session.start_step();
            gpu.wait()?;
            let start = Instant::now();
            session.run(id)?;
            gpu.wait()?;
            // The first one compiles and warms up.
            if run > 0 {
                out.runs.push(start.elapsed().as_secs_f64());
            }
        }
        out.seconds = Some(median(out.runs.iter().copied()));
        drop(session);
        gpu.wait()?;
        Ok(out)
    };
    RATIOS.into_iter().map(at_ratio).collect()
}

/// The mask of a ratio: all blocks for 0, else at least one hidden and one visible.
fn mask(plan: &Plan, settings: &Settings, ratio: f64) -> Result<BlockMask> {
    let mask =
        random_mask(settings.masking().grid(plan.train.patch), ratio, SampleKey { seed: plan.seed, step: 0, index: 0 });
    let (shown, blocks) = (mask.count(), product(mask.grid));
    if shown == 0 || (ratio > 0.0 && shown == blocks) {
        return Err(Error::plan(
            format!("{:.0} % of {blocks} blocks leaves {shown} visible, which measures nothing", 100.0 * ratio),
            "Choose a larger train.patch or a smaller mae.block",
        ));
    }
    Ok(mask)
}

/// The encoder with its gradients, and its handles. The loss is half the squared norm of every stage's output, whose
/// gradient is the output itself.
fn graph(plan: &Plan, settings: &Settings, visible: usize) -> Result<(Graph, Input, Mask)> {
    let (network, patch) = (&plan.network, plan.train.patch);
    let not_whole = || {
        Error::plan(
            format!("blocks of {} voxels are not whole at every stage of the network", settings.block),
            format!("Choose mae.block as a multiple of the total stride {:?}", network.total_stride()),
        )
    };
    let mut g = Graph::new(Parameters::default(), Precision::F32);
    let image = g.image(network.input_channels, patch);
    let mask = g.mask(settings.masking().grid(patch));
    let seen = match settings.mask_input {
        true => VoxelLayout::sparse(patch, mask, visible).ok_or_else(not_whole)?,
        false => VoxelLayout::dense(patch),
    };
    let x = g.pack(image.tensor(), network.input_channels, seen);
    let spaces =
        model::stage_spaces(network, VoxelLayout::dense(patch), Some((mask, visible))).ok_or_else(not_whole)?;
    let skips = model::encoder(&mut g, network, x, &spaces);
    let seeds: Vec<(TensorId, TensorId)> = skips.iter().map(|&skip| (skip, g.leaky_relu(skip, 1.0))).collect();
    g.backward(&seeds, []);
    Ok((g, image, mask))
}

/// The ratios as a table.
pub fn table(rows: &[EncoderTimes]) -> String {
    let whole = rows.first();
    let seconds = whole.and_then(|r| r.seconds).unwrap_or(0.0);
    let bytes = whole.map_or(0.0, |r| r.memory.activations as f64);
    let mut text = Table::default()
        .percents("masked", rows.iter().map(|r| Some(100.0 * r.mask_ratio)))
        .words("visible blocks", rows.iter().map(|r| format!("{} of {}", r.visible_blocks, r.blocks)))
        .percents("visible", rows.iter().map(|r| percent(r.visible_blocks as f64, r.blocks as f64)))
        .numbers("ms", rows.iter().map(|r| r.seconds.map(|s| s * 1e3)))
        .percents("of 0 %", rows.iter().map(|r| r.seconds.and_then(|s| percent(s, seconds))))
        .numbers("activations MiB", rows.iter().map(|r| Some(mib(r.memory.activations))))
        .percents("of 0 %", rows.iter().map(|r| percent(r.memory.activations as f64, bytes)))
        .to_string();
    for r in rows {
        if let Some(why) = &r.failed {
            text += &format!("\n{:.0} % masked was not run: {why}", 100.0 * r.mask_ratio);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_needs_less_memory_the_more_is_hidden() {
        let plan = Plan::resolve("tiny", None, &["train.patch=[32,32,32]".into()]).unwrap();
        let limits = Limits { max_binding: 1 << 30, max_buffer: 1 << 30, micro_batches: false };
        let settings = &super::super::mae(&plan).unwrap().mae;
        let bytes: Vec<u64> = RATIOS
            .iter()
            .map(|&ratio| {
                let mask = mask(&plan, settings, ratio).unwrap();
                let graph = graph(&plan, settings, mask.count()).unwrap().0;
                session_memory(&[&graph], limits, true).unwrap().activations
            })
            .collect();
        assert!(bytes.windows(2).all(|w| w[1] < w[0]), "{bytes:?}");
    }

    #[test]
    fn a_ratio_that_hides_nothing_is_refused() {
        let plan = Plan::resolve("tiny", None, &["train.patch=[16,8,8]".into()]).unwrap();
        let settings = &super::super::mae(&plan).unwrap().mae;
        assert_eq!(mask(&plan, settings, 0.0).unwrap().count(), 2);
        assert_eq!(mask(&plan, settings, 0.6).unwrap().count(), 1);
        assert!(mask(&plan, settings, 0.4).is_err());
    }
}
