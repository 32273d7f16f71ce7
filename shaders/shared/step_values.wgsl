// What changes from step to step. The loss is reported with the factor loss_scale; its gradient has the factor gradient_scale
// beside it, which the optimiser takes out again.
struct StepValues { learning_rate: f32, momentum: f32, weight_decay: f32, loss_scale: f32, gradient_scale: f32 }
