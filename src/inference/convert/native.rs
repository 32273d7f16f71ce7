//! Checkpoints as this program saves them.

use std::path::Path;

use serde_json::json;

use super::read::{About, Content};
use crate::base::Result;
use crate::inference::adaptation;
use crate::inference::weights::{Checkpoint, checkpoint};

/// Writes a `.safetensors` with every weight once, under the name of its parameter.
pub fn write(path: &Path, content: &Content) -> Result<()> {
    let texts = match &content.about {
        About::Model { plans, dataset, configuration, fold, mirror_axes } => vec![
            ("plans", plans.to_string()),
            ("dataset", dataset.to_string()),
            ("configuration", json!(configuration).to_string()),
            ("fold", json!(fold).to_string()),
            ("mirror_axes", json!(mirror_axes).to_string()),
            ("epoch", content.epoch.to_string()),
        ],
        About::Pretraining { adaptation: Some(plan) } => vec![(adaptation::KEY, plan.to_string())],
        About::Pretraining { adaptation: None } => vec![],
    };
    let checkpoint = Checkpoint {
        weights: content.weights.clone(),
        extra: texts.into_iter().map(|(key, text)| (key.to_string(), text)).chain(content.credits.texts()).collect(),
        ..Checkpoint::default()
    };
    checkpoint::save(path, &checkpoint)
}
