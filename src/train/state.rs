//! Between a session and a checkpoint.

use super::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::graph::Session;

/// Weights, and momentum of the trained parameters, from the device.
pub fn parameters_of(session: &Session) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let (mut weights, mut momentum) = (Vec::new(), Vec::new());
    for (id, p) in session.parameters.list.iter().enumerate() {
        let tensor = |data| Tensor { name: p.name.clone(), shape: p.shape.clone(), data };
        weights.push(tensor(session.weight(id)?));
        if p.trained {
            momentum.push(tensor(session.momentum(id)?));
        }
    }
    Ok((weights, momentum))
}

/// Weights (and momentum, where the session has it) from a checkpoint. Every parameter must be there in its shape.
pub fn set_parameters(session: &Session, checkpoint: &Checkpoint) -> Result<()> {
    for (id, p) in session.parameters.list.iter().enumerate() {
        let find = |list: &[Tensor]| list.iter().position(|t| t.name == p.name && t.shape == p.shape);
        match find(&checkpoint.weights) {
            Some(k) => session.set_weight(id, &checkpoint.weights[k].data),
            None => {
                return Err(Error::plan(
                    format!("the checkpoint has no tensor {} of shape {:?}", p.name, p.shape),
                    "It belongs to another network",
                ));
            }
        }
        if let Some(k) = find(&checkpoint.momentum) {
            session.set_momentum(id, &checkpoint.momentum[k].data);
        }
    }
    Ok(())
}
