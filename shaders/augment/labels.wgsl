// The label map of the patch: the label with the largest share by linear interpolation in the region; of equals the nearest
// voxel's, else the lowest. Around the crop, labels are -1. Those of the patch are floats. One voxel an invocation.

#import augment
#import packed_labels

@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const OUTSIDE: i32 = -1;
// Shares this close are equal: sums of four products, rounded.
const TIE: f32 = 5e-7;
const NO_LABEL: i32 = 0x7fffffff;

fn label_at(at: vec3<i32>) -> i32 {
    if any(at < vec3<i32>(0)) || any(at >= vec3<i32>(sampled.region)) { return OUTSIDE; }
    let u = vec3<u32>(at);
    return label_of((u.x * sampled.region.y + u.y) * sampled.region.z + u.z);
}

// Labels of the eight corners, in pairs along x: the lower four, then the upper four along z. Their weights are those of the
// interpolation.
struct Corners { low: vec4<i32>, high: vec4<i32>, weights_low: vec4<f32>, weights_high: vec4<f32> }

fn share(c: Corners, label: i32) -> f32 {
    let zero = vec4<f32>(0.0);
    let one = vec4<i32>(label);
    return dot(select(zero, c.weights_low, c.low == one) + select(zero, c.weights_high, c.high == one), vec4<f32>(1.0));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let p = position(coordinate(v));
    let at = p.voxel - sampled.start;
    let s = 1.0 - p.t;
    let plane = vec4<f32>(s.y * s.z, s.y * p.t.z, p.t.y * s.z, p.t.y * p.t.z);
    var c: Corners;
    c.low = vec4<i32>(
        label_at(at), label_at(at + vec3<i32>(0, 0, 1)), label_at(at + vec3<i32>(0, 1, 0)), label_at(at + vec3<i32>(0, 1, 1)));
    c.high = vec4<i32>(
        label_at(at + vec3<i32>(1, 0, 0)), label_at(at + vec3<i32>(1, 0, 1)),
        label_at(at + vec3<i32>(1, 1, 0)), label_at(at + vec3<i32>(1, 1, 1)));
    c.weights_low = plane * s.x;
    c.weights_high = plane * p.t.x;

    // Halfway, the voxel with the even number is the nearest.
    let up = (p.t > vec3<f32>(0.5)) | ((p.t == vec3<f32>(0.5)) & ((p.voxel & vec3<i32>(1)) == vec3<i32>(1)));
    let side = select(c.low, c.high, vec4<bool>(up.x));
    let pair = select(side.xy, side.zw, vec2<bool>(up.y));
    let nearest = select(pair.x, pair.y, up.z);

    let low = vec4<f32>(share(c, c.low.x), share(c, c.low.y), share(c, c.low.z), share(c, c.low.w));
    let high = vec4<f32>(share(c, c.high.x), share(c, c.high.y), share(c, c.high.z), share(c, c.high.w));
    let most = max(low, high);
    let tied = max(max(most.x, most.y), max(most.z, most.w)) - TIE;
    let labels = min(
        select(vec4<i32>(NO_LABEL), c.low, low >= vec4<f32>(tied)), select(vec4<i32>(NO_LABEL), c.high, high >= vec4<f32>(tied)));
    let lowest = min(min(labels.x, labels.y), min(labels.z, labels.w));
    y[v] = f32(select(lowest, nearest, share(c, nearest) >= tied));
}
