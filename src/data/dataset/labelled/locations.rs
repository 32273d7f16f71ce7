//! Voxels of each class, sampled once for each case, as nnU-Net does when it prepares one.

use std::collections::BTreeMap;

use rand::seq::index;

use crate::base::{Purpose, rng};
use crate::formats::nnunet::Labels;

/// nnU-Net's seed.
const SEED: u64 = 1234;
/// A class keeps this many voxels, or all it has, but at least this share of them.
const MOST: usize = 10_000;
const LEAST_SHARE: f64 = 0.01;

/// Rows (z, y, x) of all classes one after the other, and how many of them each class has. With an ignore label one more
/// class: whatever is not ignored, background and the outside of the mask included.
pub fn sample_for(labels: &[i16], shape: [usize; 3], classes: &Labels) -> (Vec<u16>, Vec<usize>) {
    let mut voxels: BTreeMap<i16, Vec<usize>> = BTreeMap::new();
    let background = classes.ignore.is_some();
    for (n, &label) in labels.iter().enumerate() {
        if label > 0 || background {
            voxels.entry(label).or_default().push(n);
        }
    }
    let mut sets: Vec<Vec<i16>> = classes.classes.iter().map(|c| c.values.clone()).collect();
    if let Some(ignore) = classes.ignore {
        sets.push(voxels.keys().copied().filter(|&v| v != ignore).collect());
    }
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (class, values) in sets.iter().enumerate() {
        let lists: Vec<&Vec<usize>> = values.iter().filter_map(|v| voxels.get(v)).collect();
        let total: usize = lists.iter().map(|l| l.len()).sum();
        let count = total.min(MOST).max((total as f64 * LEAST_SHARE).ceil() as usize);
        let mut chosen = index::sample(&mut rng(SEED, Purpose::Locations, class as u64, 0), total, count).into_vec();
        chosen.sort_unstable(); // they compress better, and are sampled from uniformly anyway
        let (mut voxels_left, mut passed) = (lists.into_iter().flatten(), 0);
        for n in chosen {
            let Some(&voxel) = voxels_left.nth(n - passed) else { break };
            passed = n + 1;
            let at = [voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]];
            rows.extend(at.map(|v| v as u16));
        }
        counts.push(count);
    }
    (rows, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::nnunet::Dataset;
    use serde_json::{Value, json};

    fn classes(labels: Value, order: Value) -> Labels {
        let json = json!({ "channel_names": { "0": "T1" }, "labels": labels, "regions_class_order": order });
        Dataset::from_json(json).unwrap().labels
    }

    #[test]
    fn small_classes_keep_all_their_voxels_and_large_ones_a_share() {
        let plain = classes(json!({ "background": 0, "a": 1, "b": 2, "c": 3 }), json!([1]));
        let shape = [120, 120, 100];
        let mut labels = vec![1i16; 1_440_000];
        labels[5..9].fill(2);
        labels[20] = 0;
        let (rows, counts) = sample_for(&labels, shape, &plain);
        assert_eq!(counts, [14_400, 4, 0]);
        assert_eq!(rows.len(), 3 * 14_404);
        assert_eq!(rows[3 * 14_400..], [0, 0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 8]);
        for row in rows[..3 * 14_400].chunks_exact(3) {
            let [z, y, x] = [row[0], row[1], row[2]].map(usize::from);
            assert_eq!(labels[(z * 120 + y) * 100 + x], 1);
        }
        assert_eq!(sample_for(&labels, shape, &plain).0, rows);
        assert_eq!(sample_for(&[0; 8], [2; 3], &plain), (vec![], vec![0, 0, 0]));
    }

    #[test]
    fn regions_join_labels_and_an_ignore_label_adds_a_class() {
        let labels = [0, 1, 2, 3, -1, 1, 4, 0];
        let regions = json!({ "background": 0, "whole": [1, 2, 3], "core": [3], "two": 2, "ignore": 4 });
        let (rows, counts) = sample_for(&labels, [2; 3], &classes(regions, json!([1, 2, 3])));
        assert_eq!(counts, [4, 1, 1, 7]);
        let voxel = |row: &[u16]| row[0] as usize * 4 + row[1] as usize * 2 + row[2] as usize;
        let mut all: Vec<usize> = rows.chunks_exact(3).map(voxel).collect();
        all[..4].sort_unstable();
        all[6..].sort_unstable();
        assert_eq!(all, [1, 2, 3, 5, 3, 2, 0, 1, 2, 3, 4, 5, 7]);
    }
}
