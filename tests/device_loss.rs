//! A device that is lost or does not answer in the middle of a training: what is said, and that nothing is lost but the steps
//! since the last checkpoint.

mod support;

use spark3d::base::error::{Error, Result};
use spark3d::base::progress::{Mode, Progress};
use spark3d::compute::device::Gpu;
use spark3d::compute::ops::cases::noise;
use spark3d::data::dataset::{LoaderReport, Patch, SampleKey};
use spark3d::inference::weights::checkpoint::{self, Checkpoint};
use spark3d::tasks::plan::Plan;
use spark3d::training::log::MetricsLog;
use spark3d::training::pretrain;
use spark3d::training::stop::StopFlag;
use spark3d::training::train_loop::{Batches, Run, past_of, train};
use std::path::Path;
use std::rc::Rc;
use support::{gpu, noise_samples, small_plan};

/// What happens to a device, and before the batch of which step.
type Fault = (u64, fn(&Gpu));

/// Noise for every step, and maybe a fault.
struct Noise {
    plan: Plan,
    gpu: Rc<Gpu>,
    step: u64,
    fault: Option<Fault>,
}

impl Batches<Vec<Patch>> for Noise {
    fn next(&mut self) -> Result<Vec<Vec<Patch>>> {
        if let Some((_, happens)) = self.fault.filter(|(step, _)| *step == self.step) {
            happens(&self.gpu);
        }
        self.step += 1;
        Ok(noise_samples(&self.plan, self.step - 1))
    }

    fn validation(&self, first: SampleKey) -> Result<Vec<Vec<Patch>>> {
        let shape = self.plan.train.patch;
        Ok(vec![vec![Patch::plain(noise(first.step, shape.iter().product()), shape, "noise")]])
    }

    fn report(&mut self) -> Option<LoaderReport> {
        None
    }
}

/// Trains in `folder` from its checkpoint, where there is one, to the end or until the device is at fault.
fn training(folder: &Path, plan: &Plan, fault: Option<Fault>) -> (Rc<Gpu>, Result<()>) {
    let gpu = gpu();
    std::fs::create_dir_all(folder).unwrap();
    let latest = folder.join("checkpoint_latest.safetensors");
    let resumed: Option<Checkpoint> = latest.is_file().then(|| checkpoint::load(&latest).unwrap());
    let first_step = resumed.as_ref().map_or(0, |c| c.step);
    let past = resumed.as_ref().map(past_of).unwrap_or_default();
    let mut run = Run {
        folder: folder.to_path_buf(),
        trainer: pretrain::trainer(&gpu, plan, None, resumed).unwrap(),
        batches: Box::new(Noise { plan: plan.clone(), gpu: gpu.clone(), step: first_step, fault }),
        spacing: [1.0; 3],
        past,
        extra: vec![],
    };
    let log = MetricsLog::open(folder, first_step).unwrap();
    let progress = Progress::new(Mode::Plain, Some(plan.train.steps), "training").quiet(true);
    let ended = train(&mut run, first_step, log, progress, &StopFlag::install().unwrap());
    (gpu, ended)
}

/// A training whose device is at fault before step 6: the error, which says `said`, and that its checkpoint is intact, from which
/// another process ends with the bits of a training that nothing happened to.
fn goes_on_after(happens: fn(&Gpu), said: &str) {
    let place = support::Place::new();
    // A checkpoint after every step; the momentum has something to forget.
    let plan = small_plan(&[
        "train.steps=8",
        "train.epoch_steps=4",
        "train.validation_steps=1",
        "train.checkpoint_minutes=0",
        "train.momentum=0.9",
    ]);
    let path = |run: &str| place.path(run).join("checkpoint_latest.safetensors");
    training(&place.path("whole"), &plan, None).1.unwrap();

    let (gpu, ended) = training(&place.path("fault"), &plan, Some((6, happens)));
    let error = ended.expect_err("the device is at fault");
    let text = error.to_string();
    assert!(matches!(error, Error::Device { .. }) && error.exit_code() == 1, "{error:?}");
    assert!(text.contains(&gpu.facts().name) && text.contains(said), "{text}");
    assert!(text.contains("Run the same command again") && text.contains("--device"), "{text}");
    // Whatever is tried on it afterwards fails, and says so again instead of giving numbers.
    assert!(gpu.wait().unwrap_err().to_string().contains(said));
    assert!(pretrain::trainer(&gpu, &plan, None, None).and_then(|t| t.session().weight(0)).is_err());

    let intact = checkpoint::load(path("fault")).unwrap();
    assert_eq!(intact.step, 6);
    assert!(intact.weights.iter().chain(&intact.momentum).all(|t| t.data.iter().all(|v| v.is_finite())));
    assert!(intact.momentum.iter().any(|t| t.data.iter().any(|&v| v != 0.0)));
    training(&place.path("fault"), &plan, None).1.unwrap();
    let (whole, resumed) = (std::fs::read(path("whole")).unwrap(), std::fs::read(path("fault")).unwrap());
    assert_eq!(checkpoint::load(path("fault")).unwrap().step, 8);
    assert!(whole == resumed, "the resumed training ends with other bits");
}

#[test]
fn a_lost_device_is_named_and_its_training_goes_on_to_the_same_bits() {
    goes_on_after(Gpu::lose, "lost");
}

#[test]
fn a_device_that_does_not_answer_is_named_and_its_training_goes_on_to_the_same_bits() {
    goes_on_after(Gpu::stall, "did not answer");
}
