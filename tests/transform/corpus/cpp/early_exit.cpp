#include <cstdio>
#include <cstdlib>

static void finish() { std::printf("bye\n"); }

static int search(const int *v, int n, int key) {
    int low = 0;
    int high = n - 1;
    while (low <= high) {
        int mid = low + (high - low) / 2;
        if (v[mid] == key) return mid;
        else if (v[mid] < key) low = mid + 1;
        else high = mid - 1;
    }
    return -1;
}

int main() {
    std::atexit(finish);
    int v[] = {1, 3, 5, 7, 9, 11};
    std::printf("%d %d %d\n", search(v, 6, 7), search(v, 6, 1), search(v, 6, 4));
    for (int i = 0;; i++) {
        if (v[i] > 6) std::exit(v[i]);
    }
}
