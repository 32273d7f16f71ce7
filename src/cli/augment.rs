//! `spark3d augment`

use super::{Common, at_least_one, print, whole_number};
use crate::base::{Error, Result, Volume};
use crate::compute::graph::{Limits, product};
use crate::compute::ops::augment::AugmentationRunner;
use crate::data::augment::segmentation::Sampled;
use crate::data::augment::spatial::{Matrix, determinant};
use crate::data::dataset::split;
use crate::data::{LabelledLoader, LabelledPatchSettings, LabelledStore, Loader, SampleKey, Source, Store};
use crate::evaluation::pictures::examples::{Example, Heading, examples};
use crate::evaluation::pictures::overlay::Class;
use crate::evaluation::pictures::{check_png, save_png};
use crate::inference::reconstruct::SHEET;
use crate::tasks::Plan;
use crate::tasks::augmentation::{upload, upload_labelled};
use crate::tasks::plan::finetune;
use crate::tasks::segmentation::augmentation as augmentation_of;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

/// Show patches as a training sees them: before and after augmentation, with what was sampled
#[derive(Args)]
pub struct Augment {
    /// Store made by `spark3d preprocess`, or the run folder of a fine-tuning (whose cases are prepared)
    data: PathBuf,
    /// Picture to write (.png)
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Examples: the first patch of as many steps of a training
    #[arg(long, default_value = "8", value_name = "N", value_parser = at_least_one)]
    count: usize,
    /// Seed of the training [default: the plan's]
    #[arg(long, value_name = "N", value_parser = whole_number())]
    seed: Option<u64>,
    /// TOML file with the plan, such as a run's plan.toml [default: that of the run, or the paper's]
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Change one value of the plan, such as --set train.patch=[96,96,96] (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Channel to show of images with several
    #[arg(long, default_value_t = 0, value_name = "N")]
    channel: usize,
}

impl Augment {
    pub fn run(&self, common: &Common) -> Result<()> {
        check_png(&self.out)?;
        let prepared = self.data.join("prepared");
        let mut set = self.set.clone();
        set.extend(self.seed.map(|seed| format!("seed={seed}")));
        if prepared.is_dir() {
            return self.labelled(LabelledStore::open(&prepared)?, &set, common);
        }
        match Store::open(&self.data) {
            Ok(store) => self.unlabelled(store, &set, common),
            // The message is that of a store of scans, unless it is one of labelled cases.
            Err(error) => match LabelledStore::open(&self.data) {
                Ok(store) => self.labelled(store, &set, common),
                Err(_) => Err(error),
            },
        }
    }

    fn unlabelled(&self, store: Store, set: &[String], common: &Common) -> Result<()> {
        let plan = Plan::resolve("s3d-b", self.plan.as_deref(), set)?;
        let frame = plan.frame();
        if plan.pretext.masking().is_none() {
            return Err(Error::Usage(format!(
                "augment shows patches of masked autoencoders and of labelled data sets; what {} makes of a patch is in the \
                 {SHEET} of its run",
                plan.pretext.name()
            )));
        }
        let augmentation = plan.pretext.augmentation(&frame);
        let gpu = common.gpu()?;
        let store = Arc::new(store);
        augmentation.check(Limits::of(&gpu))?;
        let mut device = AugmentationRunner::new(&gpu, &augmentation)?;
        let settings = plan.pretext.patch_settings(&frame, true);
        let loader = Loader::new(store.clone(), split::split(store.cases(), plan.seed).train, settings);
        let mut shown = Vec::new();
        for step in 0..self.count as u64 {
            let patch = loader.patch(SampleKey { seed: plan.seed, step, index: 0 })?;
            let case = store.cases().iter().position(|c| c.id == patch.case).unwrap_or(0);
            let before = store.region(case, patch.start, plan.train.patch)?;
            let (sample, session) = device.split();
            upload(session, sample, &patch);
            let after = device.run()?.0;
            let volume = |data| Volume::new(plan.train.patch, store.cases()[case].spacing, data);
            let turned = turned(patch.change.cut.as_ref().map(|c| c.matrix));
            let caption = caption(&patch.case, vec![turned, mirrored(patch.change.mirror)]);
            shown.push(Example { before: volume(before), after: volume(after), labels: None, caption });
        }
        self.write(&shown, plan.seed, plan.train.patch, &[], true)
    }

    fn labelled(&self, store: LabelledStore, set: &[String], common: &Common) -> Result<()> {
        let mut plan = finetune::Plan::preset("paper")?;
        plan.train.patch = store.configuration().patch_size;
        let own = self.own_plan();
        plan = plan.changed(self.plan.as_deref().or(own.as_deref()), set)?;
        let channels = store.configuration().normalization.len();
        plan.network.input_channels = channels;
        if self.channel >= channels {
            let what = format!("--channel {}: the cases have {channels} channels, from 0 on", self.channel);
            return Err(Error::Usage(what));
        }
        let gpu = common.gpu()?;
        let augmentation = augmentation_of(&plan.augment, &plan.frame());
        augmentation.check(Limits::of(&gpu))?;
        let mut device = AugmentationRunner::new(&gpu, &augmentation)?;
        let (patch, voxels) = (plan.train.patch, product(plan.train.patch));
        // Every patch has foreground: it is what one wants to see.
        let settings = LabelledPatchSettings { patch, batch: 1, foreground: 1.0, augment: Some(plan.augment.clone()) };
        let store = Arc::new(store);
        let loader = LabelledLoader::new(store.clone(), (0..store.cases().len()).collect(), settings)?;
        let channel = self.channel * voxels..(self.channel + 1) * voxels;
        let mut shown = Vec::new();
        for step in 0..self.count as u64 {
            let sample = loader.sample(SampleKey { seed: plan.seed, step, index: 0 })?;
            let case = store.indices(std::slice::from_ref(&sample.case))?[0];
            let (before, labels) = store.region(case, sample.start, patch)?;
            let (uploaded, session) = device.split();
            upload_labelled(session, uploaded, &sample);
            let (after, augmented) = device.run()?;
            let volume =
                |data: &[f32]| Volume::new(patch, store.configuration().spacing, data[channel.clone()].to_vec());
            let mut said = vec![turned(sample.cut.as_ref().map(|c| c.matrix))];
            if let Some(sampled) = &sample.sampled {
                said.extend(intensities(sampled, self.channel));
                said.push(mirrored(sampled.mirror));
            }
            let labels = [labels, augmented].map(|map| map.into_iter().map(i32::from).collect());
            let (before, after, caption) = (volume(&before), volume(&after), caption(&sample.case, said));
            shown.push(Example { before, after, labels: Some(labels), caption });
        }
        let classes = &store.dataset().labels.classes;
        let values: Vec<Vec<i32>> = classes.iter().map(|c| c.values.iter().map(|&v| i32::from(v)).collect()).collect();
        let shaded = classes.iter().zip(&values);
        let shaded = shaded.map(|(class, labels)| Class { name: &class.name, labels, dice: f64::NAN, voxels: 0 });
        self.write(&shown, plan.seed, patch, &shaded.collect::<Vec<_>>(), false)
    }

    /// The plan of the first fold of a run.
    fn own_plan(&self) -> Option<PathBuf> {
        let folders = std::fs::read_dir(&self.data).ok()?.flatten().map(|entry| entry.path());
        let plans = folders.map(|folder| folder.join("plan.toml")).filter(|plan| plan.is_file());
        plans.min()
    }

    fn write(&self, shown: &[Example], seed: u64, patch: [usize; 3], classes: &[Class], oriented: bool) -> Result<()> {
        let [z, y, x] = patch;
        let title = format!("{}: patches of {z} x {y} x {x}, seed {seed}", self.data.display());
        save_png(&self.out, &examples(shown, Heading { title: &title, classes, oriented }))?;
        print(self.out.display().to_string());
        Ok(())
    }
}

/// What there is to say, after the name of the case.
fn caption(case: &str, mut said: Vec<String>) -> String {
    said.retain(|text| !text.is_empty());
    if said.is_empty() { format!("{case}: unchanged") } else { format!("{case}: {}", said.join(", ")) }
}

fn turned(matrix: Option<Matrix>) -> String {
    let Some(m) = matrix else { return String::new() };
    let flat = m[0] == [1.0, 0.0, 0.0];
    let scale = if flat { determinant(&m).sqrt() } else { determinant(&m).cbrt() };
    let plane = flat && scale != 1.0;
    let trace = if plane { 1.0 + (m[1][1] + m[2][2]) / scale } else { (m[0][0] + m[1][1] + m[2][2]) / scale };
    let degrees = ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos().to_degrees();
    let rotated = (degrees > 0.01).then(|| format!("rotated by {degrees:.0}°"));
    let scaled = ((scale - 1.0).abs() > 1e-9).then(|| format!("scale {scale:.2}"));
    rotated.into_iter().chain(scaled).collect::<Vec<_>>().join(", ")
}

fn mirrored(axes: [bool; 3]) -> String {
    let names: Vec<&str> = ["z", "y", "x"].into_iter().zip(axes).filter(|a| a.1).map(|a| a.0).collect();
    if names.is_empty() { String::new() } else { format!("mirrored along {}", names.join(", ")) }
}

/// What happens to the intensities of a channel.
fn intensities(sampled: &Sampled, channel: usize) -> Vec<String> {
    let three = |v: [f64; 3]| v.map(|s| format!("{s:.2}")).join(" ");
    let number = |name: &str, list: &[Option<f64>]| list[channel].map(|v| format!("{name} {v:.2}"));
    [
        sampled.noise.map(|n| format!("noise {:.3}", n.sigma)),
        sampled.blur[channel].map(|sigma| format!("blur {}", three(sigma))),
        number("brightness", &sampled.brightness),
        number("contrast", &sampled.contrast),
        sampled.low_resolution[channel].map(|scale| format!("resolution {}", three(scale))),
        number("gamma of the negative", &sampled.inverted_gamma),
        number("gamma", &sampled.gamma),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::spatial::matrix;

    #[test]
    fn what_is_drawn_is_said() {
        assert_eq!(turned(None), "");
        assert_eq!(turned(Some(matrix([0.0; 3], 0.83))), "scale 0.83");
        assert_eq!(turned(Some(matrix([0.0, 0.5, 0.0], 1.0))), "rotated by 29°");
        assert_eq!(turned(Some(matrix([0.0, 0.0, -0.5], 1.25))), "rotated by 29°, scale 1.25");
        let mut flat = matrix([2.0, 0.0, 0.0], 1.25);
        flat[0] = [1.0, 0.0, 0.0];
        assert_eq!(turned(Some(flat)), "rotated by 115°, scale 1.25");
        assert_eq!(mirrored([true, false, true]), "mirrored along z, x");
        assert_eq!(caption("a", vec!["".into()]), "a: unchanged");
        assert_eq!(caption("a", vec!["b".into(), "c".into()]), "a: b, c");
    }
}
