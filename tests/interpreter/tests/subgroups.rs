//! Operations across the lanes of a subgroup.

mod support;

use shader_interpreter::{Buffer, FaultKind};
use support::{kinds, read_words, run_clean, run_with};

fn shader(lanes: u32, body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> r: array<u32>;
        @compute @workgroup_size({lanes}) fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_invocation_id) m: u32) {{ {body} }}"
    )
}

/// What a lane gets, given the values of its subgroup and its own number there.
fn expect(body: &str, subgroup: u32, result: impl Fn(&[u32], usize) -> u32) {
    let lanes = 128;
    let mut buffers = [Buffer::new(lanes * 4)];
    run_clean(&shader(lanes as u32, body), subgroup, &mut buffers);
    let values: Vec<u32> = (0..lanes as u32).map(|i| i * i + 1).collect();
    let size = subgroup as usize;
    let expected: Vec<u32> = (0..lanes).map(|i| result(&values[i / size * size..][..size], i % size)).collect();
    assert_eq!(read_words(&buffers[0]), expected, "{body} in subgroups of {subgroup}");
}

#[test]
fn lanes_read_other_lanes_in_subgroups_of_all_sizes() {
    for size in [8, 16, 32, 64, 128] {
        expect("r[i] = subgroupBroadcast(i * i + 1u, 5u);", size, |v, _| v[5]);
        expect("r[i] = subgroupBroadcastFirst(i * i + 1u);", size, |v, _| v[0]);
        expect("r[i] = subgroupShuffle(i * i + 1u, (m * 3u) % 8u);", size, |v, m| v[m * 3 % 8]);
        expect("r[i] = subgroupShuffleXor(i * i + 1u, 3u);", size, |v, m| v[m ^ 3]);
        expect("r[i] = subgroupAdd(i * i + 1u);", size, |v, _| v.iter().sum());
        expect("r[i] = subgroupInclusiveAdd(i * i + 1u);", size, |v, m| v[..=m].iter().sum());
        expect("r[i] = subgroupExclusiveAdd(i * i + 1u);", size, |v, m| v[..m].iter().sum());
        expect("r[i] = subgroupMax(i * i + 1u);", size, |v, _| *v.iter().max().unwrap());
        expect("r[i] = subgroupXor(i * i + 1u);", size, |v, _| v.iter().fold(0, |a, b| a ^ b));
        expect("r[i] = subgroupBallot(i % 3u == 0u).x;", size, |v, _| {
            let all = (0..v.len().min(32)).filter(|m| (v[*m] - 1).isqrt().is_multiple_of(3));
            all.map(|m| 1 << m).sum()
        });
    }
}

#[test]
fn vectors_are_broadcast_by_components() {
    let mut buffers = [Buffer::new(32 * 4)];
    let body =
        "let v = subgroupBroadcast(vec3<f32>(f32(i), f32(i) + 0.5, 7.0), 3u); r[i] = bitcast<u32>(v.x + v.y * v.z);";
    run_clean(&shader(32, body), 16, &mut buffers);
    let found = support::read_floats(&buffers[0]);
    assert_eq!((found[2], found[31]), (3.0 + 24.5, 19.0 + 136.5));
}

#[test]
fn lanes_that_are_elsewhere_are_missed() {
    let faulty = shader(64, "if i != 9u { r[i] = subgroupBroadcast(i, 0u); }");
    let report = run_with(&faulty, 1, 32, &mut [Buffer::new(256)]);
    assert_eq!(kinds(&report), [FaultKind::NonUniformBarrier]);
    assert!(report.faults[0].at.contains("lane 9"), "{}", report.faults[0]);
    // A whole subgroup may be elsewhere, and lanes may have returned.
    let other = shader(64, "if i >= 32u { r[i] = subgroupBroadcast(i, 0u); }");
    assert_eq!(kinds(&run_with(&other, 1, 32, &mut [Buffer::new(256)])), []);
    let returned = shader(64, "if i == 9u { return; } r[i] = subgroupBroadcast(i, 0u);");
    assert_eq!(kinds(&run_with(&returned, 1, 32, &mut [Buffer::new(256)])), []);
}

#[test]
fn values_of_lanes_that_are_not_there_are_out_of_range() {
    for (body, lanes) in [
        ("r[i] = subgroupBroadcast(i, 40u);", 64),
        ("r[i] = subgroupBroadcast(i, 20u);", 16),
        ("if i == 4u { return; } r[i] = subgroupBroadcast(i, 4u);", 64),
        ("r[i] = subgroupShuffleDown(i, 1u);", 64),
    ] {
        let report = run_with(&shader(lanes, body), 1, 32, &mut [Buffer::new(256)]);
        assert_eq!(kinds(&report), [FaultKind::OutOfRange], "{body}");
    }
}
