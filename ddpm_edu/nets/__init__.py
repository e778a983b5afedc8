"""Networks. Each is called as net(x_t, t, cond) and returns the shape of x_t; none knows what its output stands for."""
