// (sum, least, largest, -) of values, over a workgroup of 64 in a fixed order.
const NOTHING: vec4<f32> = vec4<f32>(0.0, 3.4e38, -3.4e38, 0.0);

var<workgroup> extremes_scratch: array<vec4<f32>, 64>;

fn joined(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(a.x + b.x, min(a.y, b.y), max(a.z, b.z), 0.0);
}

fn of_workgroup(lane: u32, value: vec4<f32>) -> vec4<f32> {
    extremes_scratch[lane] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half = half / 2u) {
        if lane < half { extremes_scratch[lane] = joined(extremes_scratch[lane], extremes_scratch[lane + half]); }
        workgroupBarrier();
    }
    return extremes_scratch[0];
}
