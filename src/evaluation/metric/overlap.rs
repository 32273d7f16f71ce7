//! Voxel counts of two label maps, and Dice and IoU from them, as nnU-Net's `evaluate_predictions` has them.

use std::collections::BTreeMap;

/// How often each pair (label of the reference, label of the prediction) occurs: all classes and regions follow from one
/// pass over the voxels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    pairs: BTreeMap<(i32, i32), u64>,
}

impl Confusion {
    /// Counts the voxels of two maps on one grid. Voxels whose reference is `ignore` do not count at all.
    ///
    /// # Panics
    /// When the maps differ in length.
    pub fn new(reference: &[i32], predicted: &[i32], ignore: Option<i32>) -> Self {
        assert_eq!(reference.len(), predicted.len(), "label maps of {} and {}", reference.len(), predicted.len());
        let mut pairs = BTreeMap::new();
        let mut voxels = reference.iter().zip(predicted);
        let mut next = voxels.next();
        while let Some(pair) = next {
            // Neighbours are mostly alike: a run of equal pairs costs one look-up.
            let mut run = 1;
            next = voxels.next();
            while next == Some(pair) {
                run += 1;
                next = voxels.next();
            }
            if Some(*pair.0) != ignore {
                *pairs.entry((*pair.0, *pair.1)).or_insert(0) += run;
            }
        }
        Self { pairs }
    }

    /// The counts of a class: one label, or a region of several.
    pub fn class(&self, labels: &[i32]) -> Counts {
        let mut counts = Counts::default();
        for ((reference, predicted), n) in &self.pairs {
            match (labels.contains(reference), labels.contains(predicted)) {
                (true, true) => counts.tp += n,
                (false, true) => counts.fp += n,
                (true, false) => counts.fn_ += n,
                (false, false) => counts.tn += n,
            }
        }
        counts
    }
}

/// Voxels of one class, by whether the prediction (positive or negative) is true or false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Voxels of the class in both maps.
    pub tp: u64,
    /// Voxels of the class in the predicted map alone.
    pub fp: u64,
    /// Voxels of the class in the reference alone; `fn` is a keyword.
    pub fn_: u64,
    /// Voxels of the class in neither map.
    pub tn: u64,
}

impl Counts {
    /// 2 TP / (2 TP + FP + FN); NaN where neither map has the class.
    pub fn dice(&self) -> f64 {
        2.0 * self.tp as f64 / (2 * self.tp + self.fp + self.fn_) as f64
    }

    /// TP / (TP + FP + FN); NaN where neither map has the class.
    pub fn iou(&self) -> f64 {
        self.tp as f64 / (self.tp + self.fp + self.fn_) as f64
    }

    /// Voxels of the class in the reference.
    pub fn n_ref(&self) -> u64 {
        self.tp + self.fn_
    }

    /// Voxels of the class in the prediction.
    pub fn n_pred(&self) -> u64 {
        self.tp + self.fp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_regions_from_one_pass() {
        let reference = [0, 0, 1, 1, 2, 2, 2, 0];
        let predicted = [0, 1, 1, 2, 2, 2, 0, 0];
        let confusion = Confusion::new(&reference, &predicted, None);
        assert_eq!(confusion.class(&[1]), Counts { tp: 1, fp: 1, fn_: 1, tn: 5 });
        assert_eq!(confusion.class(&[2]), Counts { tp: 2, fp: 1, fn_: 1, tn: 4 });
        let region = confusion.class(&[1, 2]);
        assert_eq!(region, Counts { tp: 4, fp: 1, fn_: 1, tn: 2 });
        assert_eq!((region.dice(), region.iou()), (0.8, 4.0 / 6.0));
        assert_eq!((region.n_ref(), region.n_pred()), (5, 5));
    }

    #[test]
    fn ignored_voxels_do_not_count() {
        let confusion = Confusion::new(&[9, 9, 1, 0], &[1, 0, 1, 9], Some(9));
        assert_eq!(confusion.class(&[1]), Counts { tp: 1, fp: 0, fn_: 0, tn: 1 });
    }

    #[test]
    fn empty_classes_are_not_numbers_and_missing_ones_are_zero() {
        let confusion = Confusion::new(&[0, 0, 3], &[0, 4, 0], None);
        assert!(confusion.class(&[1]).dice().is_nan() && confusion.class(&[1]).iou().is_nan());
        assert_eq!((confusion.class(&[3]).dice(), confusion.class(&[4]).iou()), (0.0, 0.0));
        assert!(Confusion::new(&[], &[], None).class(&[1]).dice().is_nan());
    }
}
