//! Checkpoints as nnU-Net and nnssl save them (`nnUNetTrainer.save_checkpoint`), without what only resuming needs.

use std::path::Path;

use super::read::{About, Content};
use crate::base::Result;
use crate::compute::model::state_dict;
use crate::formats::torch::{self, Entry, Numbers, Value, Weight};
use crate::inference::adaptation;
use crate::inference::weights::credits;

/// A trainer of nnU-Net that builds the network of the plans as they are.
const TRAINER: &str = "nnUNetTrainer";
/// What nnU-Net's logger keeps (`training/logging/nnunet_logger.py`).
const LOGGED: [&str; 8] = [
    "mean_fg_dice",
    "ema_fg_dice",
    "dice_per_class_or_region",
    "train_losses",
    "val_losses",
    "lrs",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
];

/// Writes a `.pth` that lists every weight under all names that nnU-Net's networks have for it.
pub fn write(path: &Path, content: &Content) -> Result<()> {
    let mut names: Vec<Vec<String>> = content.weights.iter().map(|w| state_dict::names(&w.name)).collect();
    // A decoder knows its encoder; an encoder alone has only its own names.
    if !content.weights.iter().any(|w| w.name.starts_with("decoder.")) {
        names.iter_mut().for_each(|names| names.retain(|name| !name.starts_with("decoder.")));
    }
    let mut weights = Vec::new();
    for (tensor, names) in content.weights.iter().zip(&names) {
        for name in names {
            let own = *name == tensor.name;
            let numbers = if own { Numbers::Own(&tensor.data) } else { Numbers::SameAs(&tensor.name) };
            weights.push(Weight { name, shape: &tensor.shape, numbers });
        }
    }
    let value = |value: Value| Entry::Value(value);
    let mut entries = vec![("network_weights", Entry::StateDict(weights))];
    match &content.about {
        About::Model { plans, dataset, configuration, fold, mirror_axes } => {
            let text = |text: &str| Value::Str(text.into());
            let fold = fold.parse().map_or_else(|_| text(fold), Value::Int);
            let arguments = [
                ("plans", Value::from_json(plans)),
                ("configuration", text(configuration)),
                ("fold", fold),
                ("dataset_json", Value::from_json(dataset)),
            ];
            let dictionary =
                |list: Vec<(&str, Value)>| Value::Dict(list.into_iter().map(|(k, v)| (text(k), v)).collect());
            let logging = LOGGED.map(|key| (key, Value::List(Vec::new())));
            let axes = mirror_axes.iter().map(|&a| Value::Int(a as i64)).collect();
            // nnU-Net takes the largest of the axes; of none there is none.
            let axes = if mirror_axes.is_empty() { Value::None } else { Value::Tuple(axes) };
            entries.extend([
                ("optimizer_state", value(Value::None)),
                ("grad_scaler_state", value(Value::None)),
                ("logging", value(dictionary(logging.into()))),
                ("_best_ema", value(Value::None)),
                ("current_epoch", value(Value::Int(content.epoch as i64))),
                ("init_args", value(dictionary(arguments.into()))),
                ("trainer_name", value(text(TRAINER))),
                ("inference_allowed_mirroring_axes", value(axes)),
            ]);
        }
        About::Pretraining { adaptation: Some(plan) } => entries.push((adaptation::KEY, value(Value::from_json(plan)))),
        About::Pretraining { adaptation: None } => {}
    }
    if let Some(citations) = &content.credits.citations {
        entries.push((credits::CITATIONS, value(Value::from_json(citations))));
    }
    if let Some(licence) = &content.credits.licence {
        entries.push((credits::LICENCE, value(Value::Str(licence.clone()))));
    }
    torch::write(path, &entries)
}
