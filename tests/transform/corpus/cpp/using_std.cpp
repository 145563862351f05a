#include <algorithm>
#include <iostream>
#include <string>
#include <vector>
using namespace std;

static string join(const vector<string> &parts, const string &by) {
    string out;
    for (size_t i = 0; i < parts.size(); i++) {
        if (i > 0) out += by;
        out += parts[i];
    }
    return out;
}

int main() {
    vector<string> words = {"if", "(x)", "{ 10 }", "é"};
    sort(words.begin(), words.end(), [](const string &a, const string &b) { return a.size() < b.size(); });
    int biggest = max(3, 10);
    string line = join(words, ", ");
    cout << line << " " << biggest << " " << line.size() << endl;
    if (line.empty()) cout << "empty"; else cout << "full\n";
}
