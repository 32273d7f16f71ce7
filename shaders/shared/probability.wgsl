// Probabilities of a channel group of logits, for shaders that import `labels` and `exists`. For a softmax, state = (largest logit,
// sum of exp(logit - largest), logit of the label, -).
fn probability(x: vec4<f32>, state: vec4<f32>, group: u32) -> vec4<f32> {
    if REGIONS { return exists(group, params.channels) / (1.0 + exp(-x)); }
    return exists(group, params.channels) * exp(x - state.x) / state.y;
}
