import java.util.Arrays;

public class Main {
    static void sort(int[] values) {
        for (int i = 1; i < values.length; i++) {
            int key = values[i];
            int j = i - 1;
            while (j >= 0 && values[j] > key) {
                values[j + 1] = values[j];
                j--;
            }
            values[j + 1] = key;
        }
    }

    static int largest(int[][] grid) {
        int best = Integer.MIN_VALUE;
        for (int[] row : grid) for (int x : row) best = x > best ? x : best;
        return best;
    }

    public static void main(String[] args) {
        int[] values = {9, 3, 7, 1};
        byte small = 10;
        char letter = 66;
        long big = 3000000000L;
        int[][] grid = new int[3][4];
        grid[2][1] = 50;
        sort(values);
        System.out.println(Arrays.toString(values) + largest(grid) + small + letter + big);
        System.out.println(-2147483648 + " " + 0x7fffffff + " " + 010 + " " + 5 / 2 + " " + 5 / 2.0);
    }
}
