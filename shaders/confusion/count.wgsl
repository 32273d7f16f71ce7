// Counts of voxels, one column a channel: predicted and annotated, predicted, annotated; counts[row * channels + channel]. Whole
// numbers: the order in which they are added does not matter. workgroup = chunk of voxels.

#import labels

@group(0) @binding(2) var<storage, read_write> state: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

override CELLS: u32 = 12u;
override CHUNK: u32 = 8192u;

var<workgroup> local: array<atomic<u32>, CELLS>;

fn count(row: u32, channel: u32) {
    atomicAdd(&local[row * params.channels + channel], 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var k = lane; k < CELLS; k += 64u) { atomicStore(&local[k], 0u); }
    workgroupBarrier();
    let total = voxel_total();
    let first = min(workgroup.x * CHUNK, total);
    let end = min(first + CHUNK, total);
    for (var v = first + lane; v < end; v += 64u) {
        let label = label_at(v);
        if label == params.ignore_label { continue; }
        let decision = state[v].y;
        if REGIONS {
            let bits = params.members[label / 4u][label % 4u];
            for (var c = 0u; c < params.channels + hidden_zero(workgroups); c++) {
                let predicted = (decision >> c) & 1u;
                let annotated = (bits >> c) & 1u;
                if predicted + annotated == 2u { count(0u, c); }
                if predicted == 1u { count(1u, c); }
                if annotated == 1u { count(2u, c); }
            }
        } else {
            if decision == label { count(0u, label); }
            count(1u, decision);
            if label < params.channels { count(2u, label); }
        }
    }
    workgroupBarrier();
    for (var k = lane; k < CELLS; k += 64u) {
        let n = atomicLoad(&local[k]);
        if n > 0u { atomicAdd(&counts[k], n); }
    }
}
