//! What the autoencoder makes of a scan: hides random blocks, lets the network fill them in, and shows both.

use crate::base::address::local;
use crate::base::{Error, Result, Volume};
use crate::compute::device::Gpu;
use crate::compute::graph::{BlockMask, Precision, Session, product};
use crate::data::sources::apart;
use crate::data::{SampleKey, preprocess};
use crate::evaluation::pictures::{Panel, Window, save_png, sheet, window_of};
use crate::formats::nifti;
use crate::inference::predict::model::PLANS;
use crate::inference::predict::window::{PEAK, SIGMA_SCALE, gaussian};
use crate::inference::weights::{
    PREPROCESSING, WeightFile, checkpoint, checkpoint_of, of_another_version, preprocessing, set_parameters,
};
use crate::tasks::pretexts::Reconstruction;
use crate::tasks::pretexts::masking::{Masking, random_mask};
use crate::tasks::{Frame, Plan};
use clap::Args;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Picture of what a validation's sample looks like, in the folder of a pre-training.
pub const SHEET: &str = "sheet.png";

/// What is reconstructed, with what, and where it goes.
#[derive(Args)]
pub struct Options {
    /// Run folder or checkpoint
    #[arg(short, long)]
    pub model: PathBuf,
    /// Scan (.nii, .nii.gz, .hdr/.img)
    #[arg(short = 'i', long = "input", value_name = "INPUT")]
    pub scan: PathBuf,
    /// Folder for the results
    #[arg(short, long)]
    pub out: PathBuf,
    /// Share of hidden blocks [default: the middle of the range it was trained with]
    #[arg(long)]
    pub mask_ratio: Option<f64>,
    /// Which blocks are hidden
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// What was measured and written.
pub struct Outcome {
    /// Mean squared error of the hidden voxels, in units of the z-score, and that of predicting zero.
    pub loss: f64,
    /// The mean squared error that predicting zero, the mean, would have.
    pub loss_of_zero: f64,
    /// What was written.
    pub files: Vec<PathBuf>,
}

/// Reconstructs a scan tile by tile and writes a PNG sheet and four NIfTI volumes on the grid the network sees.
///
/// # Errors
/// There is no checkpoint, it is not of an autoencoder, or does not fit the device; the scan cannot be read; the folder cannot be
/// written to.
pub fn reconstruct(gpu: &Rc<Gpu>, options: &Options) -> Result<Outcome> {
    let path = pretraining_of(&options.model)?;
    let checkpoint = checkpoint::load_weights(&path)?.finite(&path)?;
    let plan = Plan::parse(&checkpoint.plan_toml).map_err(|e| of_another_version(&path, e))?;
    let frame = plan.frame();
    let Some(masking) = plan.pretext.masking() else {
        return Err(Error::file(
            &path,
            format!("was pre-trained with {}, and masked autoencoders reconstruct", plan.pretext.name()),
            format!("Look at {SHEET} in its run folder, which shows what it learned"),
        ));
    };
    let settings = preprocessing(&path, checkpoint.extra.get(PREPROCESSING).map(String::as_str))?;
    let [low, high] = masking.ratio;
    let ratio = options.mask_ratio.unwrap_or((low + high) / 2.0);
    Masking { ratio: [ratio, ratio], ..masking }.check(plan.pretext.key(), frame.patch)?;
    one_scan(options)?;
    let scan = nifti::read(&options.scan)?;
    let prepared = preprocess::scan(&scan, &settings)?;
    let name = stem(&options.scan);
    std::fs::create_dir_all(&options.out).map_err(Error::io("create", &options.out))?;

    // The blocks of the volume are hidden, not of each tile: a tile may see any number of them.
    let all = product(masking.grid(frame.patch));
    let frame = Frame { precision: Precision::F32, ..frame };
    let made = plan.pretext.reconstruction(&frame, all).expect("what hides blocks fills them in");
    let Reconstruction { graph, image, mask, output } = made;
    let id = graph.id();
    let mut session = Session::new(gpu.clone(), vec![graph], None)?;
    set_parameters(&session, &checkpoint)?;
    let mut network = |visible: &BlockMask, tile: &[f32]| {
        session.set_mask(mask, visible)?;
        session.set_image(image, tile);
        session.run(id)?;
        session.read(output)
    };
    let (patch, block) = (frame.patch, masking.block);
    let (predicted, hidden) = predict(&mut network, patch, block, &prepared.volume, ratio, options.seed)?;

    let original = &prepared.volume;
    let combine = |f: &dyn Fn(usize) -> f32| {
        Volume::new(original.shape, original.spacing, (0..original.data.len()).map(f).collect())
    };
    let is_hidden = |v: usize| hidden.data[v] > 0.5;
    // The z-score's zero is the mean: what the network sees in place of hidden voxels.
    let masked = combine(&|v| if is_hidden(v) { 0.0 } else { original.data[v] });
    let filled = combine(&|v| if is_hidden(v) { predicted.data[v] } else { original.data[v] });
    let error = combine(&|v| (filled.data[v] - original.data[v]).abs());
    let count = hidden.data.iter().filter(|&&h| h > 0.5).count().max(1) as f64;
    let mean = |f: &dyn Fn(usize) -> f32| {
        (0..original.data.len()).filter(|&v| is_hidden(v)).map(|v| f64::from(f(v)).powi(2)).sum::<f64>() / count
    };
    let (loss, zero) = (mean(&|v| error.data[v]), mean(&|v| original.data[v]));

    let (lo, hi) = window_of(original);
    let panels = [
        Panel { title: "original", volume: original, window: Window::Gray(lo, hi) },
        Panel { title: "masked", volume: &masked, window: Window::GrayMasked { lo, hi, hidden: &hidden } },
        Panel { title: "reconstruction", volume: &filled, window: Window::Gray(lo, hi) },
        Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
    ];
    let intensities = |v: &Volume, shift: bool| {
        let zero = prepared.denormalize(0.0);
        let data = v.data.iter().map(|&x| prepared.denormalize(x) - if shift { zero } else { 0.0 }).collect();
        Volume::new(v.shape, v.spacing, data)
    };
    let volume_of = |suffix: &str| options.out.join(format!("{name}_{suffix}.nii.gz"));
    not_of_another(&volume_of("original"), &intensities(original, false))?;
    let caption = format!(
        "{name}: {:.0} % of {}-voxel blocks hidden; error on hidden voxels {loss:.3}, {:.2} of predicting the mean",
        100.0 * ratio,
        masking.block,
        loss / zero
    );
    let mut files = vec![options.out.join(format!("{name}_sheet.png"))];
    save_png(&files[0], &sheet(&panels, original.shape.map(|n| n / 2), &caption))?;
    for (suffix, volume, is_difference) in [
        ("original", original, false),
        ("masked", &masked, false),
        ("reconstruction", &filled, false),
        ("error", &error, true),
    ] {
        let file = volume_of(suffix);
        nifti::write_grid(&file, &intensities(volume, is_difference), &prepared.affine)?;
        files.push(file);
    }
    Ok(Outcome { loss, loss_of_zero: zero, files })
}

/// Gives the patch that the network makes of a tile, whose hidden blocks the mask says.
type Network<'a> = dyn FnMut(&BlockMask, &[f32]) -> Result<Vec<f32>> + 'a;

/// Hides random blocks, `block` voxels along each edge, of the whole volume and predicts them tile by tile. Tiles have the
/// network's patch, overlap by half, start at whole blocks so that all of them see the same mask, and are blended with the
/// sliding window's Gaussian weights. Returns the prediction and 1 where a voxel was hidden.
fn predict(
    network: &mut Network,
    patch: [usize; 3],
    block: usize,
    volume: &Volume,
    ratio: f64,
    seed: u64,
) -> Result<(Volume, Volume)> {
    // Whole blocks, one patch at least; the volume sits in the middle, with the mean around it.
    let padded: [usize; 3] = std::array::from_fn(|a| volume.shape[a].max(patch[a]).next_multiple_of(block));
    let before: [usize; 3] = std::array::from_fn(|a| (padded[a] - volume.shape[a]) / 2);
    let mask = random_mask(padded.map(|n| n / block), ratio, SampleKey { seed, step: 0, index: 0 });
    let starts: [Vec<usize>; 3] = std::array::from_fn(|a| {
        let step = (patch[a] / block / 2).max(1) * block;
        let last = padded[a] - patch[a];
        (0..last).step_by(step).chain([last]).collect()
    });
    let weights = gaussian(patch, SIGMA_SCALE, PEAK);
    let grid = patch.map(|n| n / block);
    let mut sum = Volume::zeros(volume.shape, volume.spacing);
    let mut total = vec![0f32; volume.data.len()];
    for tile in coordinates(starts.each_ref().map(Vec::len)) {
        let corner: [usize; 3] = std::array::from_fn(|a| starts[a][tile[a]]);
        // (voxel of the patch, voxel of the volume) where the tile meets the volume
        let pairs: Vec<(usize, usize)> = coordinates(patch)
            .enumerate()
            .filter_map(|(p, c)| {
                let at: [usize; 3] = std::array::from_fn(|a| (corner[a] + c[a]).wrapping_sub(before[a]));
                (0..3).all(|a| at[a] < volume.shape[a]).then(|| (p, volume.index(at[0], at[1], at[2])))
            })
            .collect();
        let mut image = vec![0.0; patch.iter().product()];
        pairs.iter().for_each(|&(p, v)| image[p] = volume.data[v]);
        let is_visible = |c: [usize; 3]| mask.at(std::array::from_fn(|a| corner[a] + c[a] * block), padded);
        let visible = coordinates(grid).map(is_visible).collect();
        let values = network(&BlockMask { grid, visible }, &image)?;
        for (p, v) in pairs {
            sum.data[v] += weights[p] * values[p];
            total[v] += weights[p];
        }
    }
    sum.data.iter_mut().zip(&total).for_each(|(s, t)| *s /= t);
    let mut hidden = Volume::zeros(volume.shape, volume.spacing);
    for (v, c) in coordinates(volume.shape).enumerate() {
        let seen = mask.at(std::array::from_fn(|a| c[a] + before[a]), padded);
        hidden.data[v] = f32::from(u8::from(!seen));
    }
    Ok((sum, hidden))
}

fn coordinates(d: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..d[0] * d[1] * d[2]).map(move |v| [v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]])
}

/// The checkpoint of a pre-training of this program.
///
/// # Errors
/// There is none, or it is of a segmentation, or one of PyTorch.
fn pretraining_of(model: &Path) -> Result<PathBuf> {
    let segmentation = |of: &Path| {
        let cause = "it is a segmentation network, and autoencoders reconstruct";
        Err(Error::file(of, cause, "Use `spark3d predict` with it, or name the run folder of a pre-training"))
    };
    if model.join(PLANS).is_file() {
        return segmentation(model);
    }
    let path = checkpoint_of(model)?;
    let file = WeightFile::open(&path)?;
    if file.description().is_some_and(|said| said.plans.is_some()) {
        return segmentation(&path);
    }
    if file.is_torch() {
        let converted = path.with_extension("safetensors");
        let remedy = format!(
            "Turn it into one of this program first: `spark3d convert {} {}`",
            path.display(),
            converted.display()
        );
        return Err(Error::file(path, "it is a checkpoint of PyTorch", remedy));
    }
    Ok(path)
}

/// # Errors
/// The input is not a file, or the output cannot be a folder or is that of the scan.
fn one_scan(options: &Options) -> Result<()> {
    let Options { scan, out, .. } = options;
    local(scan)?;
    if scan.is_dir() {
        return Err(Error::file(scan, "it is a folder, and one scan is reconstructed", "Name a scan within it"));
    }
    if out.exists() && !out.is_dir() {
        return Err(Error::file(out, "it is a file, and the results are several", "Give a folder with -o"));
    }
    apart(out, scan.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Results are named by their scan: those of another one of the same name must not be replaced.
///
/// # Errors
/// The file is there and holds another volume.
fn not_of_another(file: &Path, original: &Volume) -> Result<()> {
    // What is not there or not whole can be replaced.
    let Ok(there) = nifti::read_labels(file) else { return Ok(()) };
    if there.volume.shape == original.shape && there.volume.data == original.data {
        return Ok(());
    }
    let cause = "it is of another scan of the same name, or of this one before it or the model changed";
    Err(Error::file(file, cause, "Give another folder with -o, or remove it"))
}

/// File name without the endings of NIfTI, in which `_` stands for what is not UTF-8.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace(char::REPLACEMENT_CHARACTER, "_");
    let lower = name.to_ascii_lowercase();
    let endings = [".nii.gz", ".hdr.gz", ".img.gz", ".nii", ".hdr", ".img"];
    let length = endings.iter().find(|ending| lower.ends_with(**ending)).map_or(0, |ending| ending.len());
    name[..name.len() - length].to_string()
}
