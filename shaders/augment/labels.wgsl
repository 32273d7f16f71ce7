// The label map of the patch: the label with the largest share by linear interpolation in the part; of equals the nearest
// voxel's, else the lowest. Around the crop, labels are -1. Those of the patch are floats. One voxel an invocation.

#import augment

#import packed_labels

@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const OUTSIDE: i32 = -1;
// Shares this close are equal: sums of four products, rounded.
const TIE: f32 = 5e-7;

fn label_at(at: vec3<i32>) -> i32 {
    if any(at < vec3<i32>(0)) || any(at >= vec3<i32>(drawn.part)) { return OUTSIDE; }
    let u = vec3<u32>(at);
    return label_of((u.x * drawn.part.y + u.y) * drawn.part.z + u.z);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (group.x + group.y * groups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let p = position(coordinate(v));
    let at = p.voxel - drawn.start;
    // Corners in pairs along x: the lower four, then the upper four along z.
    let low = vec4<i32>(
        label_at(at), label_at(at + vec3<i32>(0, 0, 1)), label_at(at + vec3<i32>(0, 1, 0)), label_at(at + vec3<i32>(0, 1, 1)));
    let high = vec4<i32>(
        label_at(at + vec3<i32>(1, 0, 0)), label_at(at + vec3<i32>(1, 0, 1)),
        label_at(at + vec3<i32>(1, 1, 0)), label_at(at + vec3<i32>(1, 1, 1)));
    if all(low == vec4<i32>(low.x)) && all(high == vec4<i32>(low.x)) {
        y[v] = f32(low.x);
        return;
    }
    let s = 1.0 - p.t;
    let plane = vec4<f32>(s.y * s.z, s.y * p.t.z, p.t.y * s.z, p.t.y * p.t.z);
    let weights_low = plane * s.x;
    let weights_high = plane * p.t.x;
    // Halfway, the voxel with the even number is the nearest.
    let up = (p.t > vec3<f32>(0.5)) | ((p.t == vec3<f32>(0.5)) & ((p.voxel & vec3<i32>(1)) == vec3<i32>(1)));
    let near_corner = select(0u, 2u, up.y) + select(0u, 1u, up.z);
    let nearest = select(low[near_corner], high[near_corner], up.x);

    var best = 0.0;
    for (var n = 0u; n < 8u; n++) {
        let label = vec4<i32>(select(low[n & 3u], high[n & 3u], n > 3u));
        let zero = vec4<f32>(0.0);
        let share = dot(select(zero, weights_low, low == label) + select(zero, weights_high, high == label), vec4<f32>(1.0));
        best = max(best, share);
    }
    var winner = 0x7fffffff;
    for (var n = 0u; n < 8u; n++) {
        let one = select(low[n & 3u], high[n & 3u], n > 3u);
        let label = vec4<i32>(one);
        let zero = vec4<f32>(0.0);
        let share = dot(select(zero, weights_low, low == label) + select(zero, weights_high, high == label), vec4<f32>(1.0));
        if best - share <= TIE {
            // The nearest voxel's label comes before all others.
            winner = min(winner, select(one, -0x7fffffff, one == nearest));
        }
    }
    y[v] = f32(select(winner, nearest, winner == -0x7fffffff));
}
