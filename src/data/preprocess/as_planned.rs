//! Resampling the way nnU-Net's plans say: of the intensities of a case, of its labels, of the logits of a prediction.

use crate::base::{Error, Result};
use crate::data::resample::{self, Order};
use crate::formats::nnunet::Resampling;

/// Resamples intensities (or logits) the way the plans say, from voxels of `current` mm to voxels of `new` mm. C order.
///
/// # Errors
/// The plans ask for an order of interpolation that is not 0, 1 or 3.
pub fn resample_data(
    data: &[f32],
    shape: [usize; 3],
    target: [usize; 3],
    how: &Resampling,
    current: [f64; 3],
    new: [f64; 3],
) -> Result<Vec<f32>> {
    let (order, order_z) = (degree(how.order)?, degree(how.order_z)?);
    let axis = resample::separate_axis_as(how.force_separate_z, current, new);
    Ok(resample::resample_with(data, shape, target, order, axis.map(|axis| (axis, order_z))))
}

/// As [`resample_data`] for a segmentation: label by label, the largest share wins.
///
/// # Errors
/// As [`resample_data`]; segmentations have order 0 or 1.
pub fn resample_segmentation(
    labels: &[i16],
    shape: [usize; 3],
    target: [usize; 3],
    how: &Resampling,
    current: [f64; 3],
    new: [f64; 3],
) -> Result<Vec<i16>> {
    let (order, order_z) = (degree(how.order)?, degree(how.order_z)?);
    if order == Order::Cubic || order_z == Order::Cubic {
        return Err(Error::plan(
            "the plans ask for order 3 for segmentations",
            "Set order and order_z of resampling_fn_seg_kwargs to 0 or 1",
        ));
    }
    let axis = resample::separate_axis_as(how.force_separate_z, current, new);
    Ok(resample::resample_labels_with(labels, shape, target, order, axis.map(|axis| (axis, order_z))))
}

fn degree(order: u32) -> Result<Order> {
    Order::from_degree(order).ok_or_else(|| {
        Error::plan(format!("the plans ask for interpolation of order {order}"), "Orders 0, 1 and 3 are supported")
    })
}
