#include <cstdio>
#include <stdexcept>

static int risky(int n) {
    if (n > 10) throw std::runtime_error("too big");
    else if (n < 0) throw n;
    return n * 2;
}

static int guarded(int n) {
    int result = 0;
    try {
        result = risky(n);
        for (int i = 0; i < 3; i++) { if (result > 15) throw 'x'; result += i; }
    } catch (const std::exception &error) {
        std::printf("%s ", error.what());
        result = -1;
    } catch (int code) {
        result = code - 100;
    } catch (...) {
        result = -2;
    }
    return result;
}

int main() {
    std::printf("%d %d %d %d\n", guarded(3), guarded(11), guarded(-4), guarded(9));
}
