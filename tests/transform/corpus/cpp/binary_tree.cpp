#include <cstdio>

struct Tree {
    int key;
    Tree *left = nullptr, *right = nullptr;
    explicit Tree(int key) : key(key) {}
    ~Tree() { delete left; delete right; }
};

static Tree *insert(Tree *tree, int key) {
    if (tree == nullptr) return new Tree(key);
    if (key < tree->key) tree->left = insert(tree->left, key);
    else if (key > tree->key) tree->right = insert(tree->right, key);
    return tree;
}

static int depth(const Tree *tree) {
    if (!tree) return 0;
    int left = depth(tree->left), right = depth(tree->right);
    return 1 + (left > right ? left : right);
}

static void print(const Tree *tree) { if (tree) { print(tree->left); std::printf("%d ", tree->key); print(tree->right); } }

int main() {
    Tree *root = nullptr;
    int keys[] = {5, 2, 8, 1, 9, 10};
    for (int key : keys) root = insert(root, key);
    print(root);
    std::printf("depth %d\n", depth(root));
    delete root;
}
