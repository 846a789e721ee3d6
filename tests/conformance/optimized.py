"""XLA's usual optimization, for programs that run longer than they compile: tests do without."""

OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
